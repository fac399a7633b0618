"""Attention together with its log-sum-exp, both with their gradients.

Shapes: B batch, H heads, Q queries, K tokens, F channels of queries and keys, E of values.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .channels import equally_wide

aten = torch.ops.aten


def attention_with_lse(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of the sum of exponentials that its softmax divides by.

    Torch's kernels give the log-sum-exp without a gradient. With logits s, weights p, outputs o
    and a gradient d of o, their backward pass gives ds = p (d v - d o). The log-sum-exp's gradient
    g is to add p g. So in the backward pass the values get a channel of ones, whose output, which
    is one, is taken for zero and its gradient for g.

    Args:
        q: (B, H, Q, F).
        k: (B, H, K, F).
        v: (B, H, K, E).
        scale: of the logits.

    Returns:
        (B, H, Q, E) and (B, H, Q), the latter in float32 or finer.

    Raises:
        NotImplementedError: on a device other than the CPU and CUDA.
    """
    if q.device.type not in ('cpu', 'cuda'):
        raise NotImplementedError(
            f"the log-sum-exp of attention on {q.device.type!r} is not at hand; use 'dense'"
        )
    return _AttentionWithLse.apply(q, k, v, scale)


class _AttentionWithLse(torch.autograd.Function):
    """What is kept for the backward pass is the inputs as they are given, without a copy."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        kernel = _forward_cpu if q.device.type == 'cpu' else _forward_cuda
        out, lse, *rest = kernel(*equally_wide(q, k, v), scale)
        out = out[..., : v.shape[-1]]
        ctx.save_for_backward(q, k, v, out, lse, *rest)
        ctx.scale = scale
        return out, lse[..., : q.shape[2]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, *rest = ctx.saved_tensors
        wide_q, wide_k, wide_v = equally_wide(q, k, F.pad(v, (0, 1), value=1.0))
        missing = (0, wide_v.shape[-1] - v.shape[-1])
        grad_out, out = F.pad(grad_out, missing), F.pad(out, missing)
        grad_out[..., v.shape[-1]] = grad_lse
        kernel = _backward_cpu if q.device.type == 'cpu' else _backward_cuda
        grads = kernel(grad_out, wide_q, wide_k, wide_v, out, lse, *rest, scale=ctx.scale)
        return *(g[..., : x.shape[-1]] for g, x in zip(grads, (q, k, v), strict=True)), None


def _forward_cpu(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, ...]:
    return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)


def _backward_cpu(*saved: Tensor, scale: float) -> tuple[Tensor, ...]:
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *saved, 0.0, False, scale=scale
    )


def _forward_cuda(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, ...]:
    """The log-sum-exp may be padded to more queries."""
    return aten._scaled_dot_product_efficient_attention(q, k, v, None, True, scale=scale)


def _backward_cuda(
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
    gradients = aten._scaled_dot_product_efficient_attention_backward(
        grad_out, q, k, v, None, out, lse, seed, offset, 0.0, [True, True, True, False],
        scale=scale,
    )  # fmt: skip
    return gradients[:3]
