"""Attention under a bias by group, a gate or a mix, with kernels that know of none of them.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value, M token
groups.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attention_bias import AttentionBias, AttentionGate, AttentionMix, Routing, groups_there
from .channels import equally_wide, fold_absence, fold_bias
from .with_lse import attention_with_lse

# cuDNN is left out: its attention has given wrong gradients (pytorch issues 196678 and 191612).
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def folded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, present: Tensor | None
) -> Tensor:
    """Attention without a Q x K tensor; see :func:`~.dense.dense_attention`.

    Raises:
        ValueError: a bias in windows; a gate or mix of groups whose tokens lie scattered.
    """
    if not isinstance(routing, AttentionBias):
        return _by_group(q, k, v, routing, present)
    if routing.windows:
        raise ValueError("attention 'folded' cannot honour a bias in windows; use 'window'")
    return _biased(q, k, v, routing, present)


def _biased(q: Tensor, k: Tensor, v: Tensor, bias: AttentionBias, present: Tensor | None) -> Tensor:
    scale = q.shape[-1] ** -0.5
    channels = v.shape[-1]
    q, k = fold_bias(q, k, bias, scale=scale)
    q, k = fold_absence(q, k, present, scale=scale)
    with sdpa_kernel(KERNELS):
        out = F.scaled_dot_product_attention(*equally_wide(q, k, v), scale=scale)
    return out[..., :channels]


def _by_group(
    q: Tensor, k: Tensor, v: Tensor, routing: AttentionGate | AttentionMix, present: Tensor | None
) -> Tensor:
    """An attention for each group, then the sum of all by their shares."""
    scale = q.shape[-1] ** -0.5
    q, k = fold_absence(q, k, present, scale=scale)
    sizes = _group_sizes(routing)
    outputs, lse = [], []
    for own_k, own_v in zip(k.split(sizes, dim=2), v.split(sizes, dim=2), strict=True):
        if own_k.shape[2] == 0:
            outputs.append(v.new_zeros(*q.shape[:-1], v.shape[-1]))
            lse.append(torch.zeros_like(q[..., 0], dtype=torch.float32))
            continue
        own_out, own_lse = attention_with_lse(q, own_k, own_v, scale=scale)
        outputs.append(own_out)
        lse.append(own_lse)
    there = groups_there(routing.groups, routing.num_groups, present)
    shares = routing.shares(torch.stack(lse, dim=-1), there).unsqueeze(-1).to(v)
    return (torch.stack(outputs, dim=3) * shares).sum(dim=3)


def _group_sizes(routing: AttentionGate | AttentionMix) -> list[int]:
    """Tokens of each group."""
    if (routing.groups.diff() < 0).any():
        raise ValueError("attention 'folded' takes tokens in the ascending order of their groups")
    return routing.groups.bincount(minlength=routing.num_groups).tolist()
