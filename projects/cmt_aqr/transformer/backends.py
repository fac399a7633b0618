"""Ways to compute attention under a router's bias; all but the first without a Q x K tensor.

Every back end has the signature of :func:`dense_attention`, honours all of it or raises, and is
tested against it.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value, M token
groups.
"""

import functools
import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_bias import AttentionBias

ABSENT = -1e4
"""Added to the logit of a token that is not there: finite, so that gradients stay so, and far below
the logits of trained models, which differ by hundreds."""


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, *, bias: AttentionBias, present: Tensor | None
) -> Tensor:
    """Attention with the bias spelled out for every pair: the reference.

    Args:
        q: (B, H, Q, D).
        k: (B, H, K, D).
        v: (B, H, K, E).
        bias: the same for all heads.
        present: (B, K), bool: tokens that a sample has; ``None`` for all.

    Returns:
        (B, H, Q, E).
    """
    mask = bias.dense()[:, None]
    if present is not None:
        mask = mask.masked_fill(~present[:, None, None], -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def folded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, bias: AttentionBias, present: Tensor | None
) -> Tensor:
    """Attention with the bias as further channels of queries and keys, in any kernel.

    A query gets the biases of the groups, a key the one-hot code of its group, and their product
    is the bias of the pair.

    Raises:
        ValueError: the bias has windows.
    """
    if bias.windows:
        raise ValueError("back end 'folded' cannot honour a bias with windows; use 'dense'")
    width = v.shape[-1]
    return _attention(*_fold(q, k, v, bias=bias, present=present), scale=_scale(q))[..., :width]


BACKENDS = {'dense': dense_attention, 'folded': folded_attention}


def choose_backend(bias: AttentionBias) -> str:
    """The back end of the least cost that honours the bias; it is logged once."""
    backend = 'dense' if bias.windows else 'folded'
    scope = 'a bias in windows' if bias.windows else 'a bias by group'
    _log_once(f'attention under {scope}: back end {backend!r}')
    return backend


@functools.cache
def _log_once(message: str) -> None:
    try:
        from mmengine.logging import print_log
    except ImportError:  # on a machine with torch alone
        logging.getLogger(__name__).info(message)
    else:
        print_log(message, logger='current')


def _fold(
    q: Tensor, k: Tensor, v: Tensor, *, bias: AttentionBias, present: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys with the channels of the bias and of absence, all three equally wide."""
    scale = _scale(q)
    weights = [bias.of_groups() / scale]
    codes = [F.one_hot(bias.groups, bias.everywhere.shape[-1]).expand(len(q), -1, -1)]
    if present is not None:
        weights.append(torch.full_like(weights[0][..., :1], ABSENT / scale))
        codes.append(~present[..., None])
    q = _append(q, torch.cat(weights, dim=-1))
    k = _append(k, torch.cat(codes, dim=-1))
    # Kernels that store no Q x K tensor want values as wide as keys, on a GPU in steps of 8.
    width = max(k.shape[-1], v.shape[-1])
    if q.device.type != 'cpu':
        width = -(-width // 8) * 8
    return tuple(F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))


def _append(x: Tensor, channels: Tensor) -> Tensor:
    """(B, H, N, D) with (B, N, more) put behind the channels of every head."""
    return torch.cat([x, channels.to(x)[:, None].expand(-1, x.shape[1], -1, -1)], dim=-1)


def _scale(q: Tensor) -> float:
    """Of the logits: appended channels leave it as it was."""
    return q.shape[-1] ** -0.5


def _attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=scale)
