"""The kernels of PyTorch behind attention and sparse pairs; no other file calls a private one.

A private kernel may change in any release. It is called only under releases of torch from 2.8 to
2.13: the sources of 2.8, 2.11 and 2.13 were read, and agree in all that follows. Elsewhere
:func:`why_not` gives the reason, and public functions are used.

What the kernels assume beyond their signatures, mostly without a check:

``_scaled_dot_product_flash_attention_for_cpu`` (``native/cpu/FlashAttentionKernel.cpp``)
    float16, bfloat16, float32 or float64; query, key and value of equal width with adjacent
    channels. The log-sum-exp is float32, or float64 for float64; the backward pass expects it in
    the memory layout in which the forward pass returns it, (B, Q, H).

``_scaled_dot_product_efficient_attention`` (``native/transformers/cuda/mem_eff_attention``)
    float32, float16 or, from compute capability 8.0 on, bfloat16, the same for all inputs, with
    adjacent channels. The widths, all other strides and the address are multiples of 16 bytes,
    which is 4 or 8 numbers; 8 serve for both. The output lies in memory as (B, Q, H, E). The
    log-sum-exp is a contiguous float32 (B, H, Q'), where Q' is the next multiple of 32 queries,
    filled up with infinity. The backward pass

    - takes ``out`` to lie in memory as (B, Q, H, E), E being the width of the value:
      ``o_strideM() = head_dim_value * num_heads`` in ``kernel_backward.h``. Only the other strides
      come from the tensor. In half precision the kernel computes ``sum(out * grad_out)`` from
      there, and any other layout makes the gradients of query and key silently wrong. In float32
      ATen computes that sum outside, by the strides of the tensor;
    - makes ``grad_out`` contiguous in that layout itself;
    - takes the log-sum-exp as the forward pass returned it, padding included.

    Seed and offset belong to dropout, which is never used here; they are passed on.

``_embedding_bag_per_sample_weights_backward`` (``native/EmbeddingBag.cpp``, ``cuda``)
    Any floating type, the same for rows and table; contiguous places, offsets and bags, all of them
    int32 or all int64. Each product is one reduction, so that the result is deterministic. The
    public ``embedding_bag`` in mode ``sum`` adds up each bag in order and is deterministic too; it
    takes any floating type, the same for table and weights, and a first offset of zero.

Shapes: B batch, H heads, Q queries, K tokens, F channels of queries and keys, E of values, N pairs.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten

OLDEST, NEWEST = (2, 8), (2, 13)
"""releases of torch between which the private kernels are called"""

# Whether a private kernel may be called.


@functools.cache
def why_not() -> str | None:
    """Why private kernels may not be called under this torch; ``None`` if they may."""
    release = tuple(int(part) for part in torch.__version__.split('.')[:2])
    if OLDEST <= release <= NEWEST and torch.version.hip is None:
        return None
    build = ' for ROCm' if torch.version.hip is not None else ''
    return (
        f'torch {torch.__version__}{build} is not among the releases whose kernels are known, '
        f'{".".join(map(str, OLDEST))} to {".".join(map(str, NEWEST))} for CPU and CUDA'
    )


@functools.cache
def log_once(message: str) -> None:
    """Log a line the first time that it comes up."""
    try:
        from mmengine.logging import print_log
    except ImportError:  # on a machine with torch alone
        logging.getLogger(__name__).info(message)
    else:
        print_log(message, logger='current')


# Attention, and its log-sum-exp.


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """PyTorch's public function without the kernel of cuDNN.

    With a mask the latter has given NaN and wrong gradients on H100 and H200 since torch 2.11
    (https://github.com/pytorch/pytorch/issues/196678 and 191612). It is left out here as well as in
    ``compat``, because the setting is global and other code may change it.

    On CUDA a mask rules out flash attention; the memory-efficient kernel takes one of shape
    (B, 1, 1, K) or (Q, Q) as it is, without a (B, H, Q, K) copy, if its last dimension is
    contiguous (``preprocess_mask`` in ``transformers/attention.cpp`` pads before it expands).
    """
    with _without_cudnn():
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, scale=scale
        )


@contextmanager
def _without_cudnn() -> Iterator[None]:
    enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(enabled)


class AttentionKernel(NamedTuple):
    """A pair of private kernels for one type of device.

    ``grad_out`` and ``out`` of the backward pass may have any memory layout. Its gradients do not
    include that of the log-sum-exp.
    """

    forward: Callable[..., tuple[Tensor, ...]]
    """(q, k, v, scale) -> out, log-sum-exp, state of dropout"""
    backward: Callable[..., tuple[Tensor, ...]]
    """(grad_out, q, k, v, out, log-sum-exp, state of dropout, scale) -> gradients of q, k, v"""


def why_no_log_sum_exp(device: torch.device) -> str | None:
    """Why no kernel gives the log-sum-exp of attention on a device; ``None`` if one does."""
    if device.type not in KERNELS:
        return f'no kernel for {device.type!r} is known to give the log-sum-exp of attention'
    return why_not()


def attention_forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> tuple[Tensor, ...]:
    """Attention with its log-sum-exp, without gradients.

    Args:
        q: (B, H, Q, F).
        k: (B, H, K, F).
        v: (B, H, K, E).
        scale: factor of the logits.

    Returns:
        The output (B, H, Q, E), the log-sum-exp (B, H, at least Q), and further tensors that the
        backward kernel needs.

    Raises:
        RuntimeError: no known kernel gives the log-sum-exp on this device or torch.
    """
    reason = why_no_log_sum_exp(q.device)
    if reason:
        raise RuntimeError(f"{reason}; use attention='dense'")
    return KERNELS[q.device.type].forward(q, k, v, scale)


def _flash_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, ...]:
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(*_for_flash(q, k, v), scale=scale)
    return out[..., : v.shape[-1]], lse


def _flash_backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *, scale: float
) -> tuple[Tensor, ...]:
    widths = q.shape[-1], k.shape[-1], v.shape[-1]
    grad_out, q, k, v, out = _for_flash(grad_out, q, k, v, out)
    grads = aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad_out, q, k, v, out, lse, 0.0, False, scale=scale
    )
    return tuple(grad[..., :width] for grad, width in zip(grads, widths, strict=True))


def _for_flash(*inputs: Tensor) -> list[Tensor]:
    """Equal widths, by zeros behind the channels, and adjacent channels."""
    width = max(x.shape[-1] for x in inputs)
    padded = (_widened(x, width) for x in inputs)
    return [x if x.stride(-1) == 1 else x.contiguous() for x in padded]


def _efficient_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, ...]:
    out, *rest = aten._scaled_dot_product_efficient_attention(
        _aligned(q), _aligned(k), _aligned(v), None, True, scale=scale
    )
    return out[..., : v.shape[-1]], *rest


def _efficient_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    seed: Tensor,
    offset: Tensor,
    *,
    scale: float,
) -> tuple[Tensor, ...]:
    widths = q.shape[-1], k.shape[-1], v.shape[-1]
    q, k, v = _aligned(q), _aligned(k), _aligned(v)
    grad_out, out = _by_query(grad_out, v.shape[-1]), _by_query(out, v.shape[-1])
    *grads, _ = aten._scaled_dot_product_efficient_attention_backward(
        grad_out, q, k, v, None, out, lse, seed, offset, 0.0, [True, True, True, False],
        scale=scale,
    )  # fmt: skip
    return tuple(grad[..., :width] for grad, width in zip(grads, widths, strict=True))


def _aligned(x: Tensor) -> Tensor:
    """(B, H, N, F) with adjacent channels, padded to a multiple of 8, rows at multiples of 8."""
    x = _widened(x, -(-x.shape[-1] // 8) * 8)
    *strides, last = x.stride()
    if last == 1 and all(place % 8 == 0 for place in (*strides, x.storage_offset())):
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _by_query(x: Tensor, width: int) -> Tensor:
    """(B, H, Q, width), padded, in the memory layout (B, Q, H, width)."""
    return _widened(x.transpose(1, 2), width).contiguous().transpose(1, 2)


def _widened(x: Tensor, width: int) -> Tensor:
    """Channels padded with zeros to ``width``."""
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


_FLASH = AttentionKernel(_flash_forward, _flash_backward)
_EFFICIENT = AttentionKernel(_efficient_forward, _efficient_backward)
KERNELS = {'cpu': _FLASH, 'cuda': _EFFICIENT, 'meta': _EFFICIENT}
"""by type of device; on ``meta`` tensors the kernel of CUDA gives shapes and layouts"""


# Sparse pairs.


def pair_products(
    rows: Tensor, table: Tensor, place: Tensor, offsets: Tensor, bag: Tensor
) -> Tensor:
    """(N,): scalar product of a row and an entry of the table for every pair.

    Args:
        rows: (bags, F).
        table: (entries, F).
        place: (N,), entry of each pair.
        offsets: (bags,), first pair of each row.
        bag: (N,), row of each pair, ascending.
    """
    reason = why_not()
    if reason:
        log_once(f'pairs of queries and tokens are gathered one by one: {reason}')
        return (rows[bag.long()] * table[place.long()]).sum(dim=-1)
    return aten._embedding_bag_per_sample_weights_backward(
        rows, table, place, offsets, bag, 0  # the mode 'sum'
    )  # fmt: skip
