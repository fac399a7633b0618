"""Attention under a bias by group, a gate or a mix, with kernels that know of none of them.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value, M token
groups.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attention_bias import AttentionBias, AttentionGate, AttentionMix, Routing
from .channels import append, equally_wide, fold_absence, fold_bias
from .with_lse import attention_with_lse

# cuDNN is left out: its attention has given wrong gradients (pytorch issues 196678 and 191612).
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def folded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, present: Tensor | None
) -> Tensor:
    """Attention without a Q x K tensor; see :func:`~.dense.dense_attention`.

    Raises:
        ValueError: a bias in windows; a mix whose tokens are not in the order of their groups.
    """
    if isinstance(routing, AttentionGate):
        return _gated(q, k, v, routing, present)
    if isinstance(routing, AttentionMix):
        return _mixed(q, k, v, routing, present)
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


def _gated(q: Tensor, k: Tensor, v: Tensor, gate: AttentionGate, present: Tensor | None) -> Tensor:
    """A gate as a bias.

    Under the bias log g the mass on a group is p' = g p / S with S = sum g p, and the output is
    that of the gate divided by S. Channels of the values give the masses, and 1 / S = sum p' / g.
    """
    gains = gate.of_groups()
    bias = AttentionBias(gains.log(), gate.groups, (), torch.inf)
    channels = v.shape[-1]
    v = append(v, F.one_hot(gate.groups, gains.shape[-1]))
    out, masses = _biased(q, k, v, bias, present).tensor_split([channels], dim=-1)
    return out / (masses / gains[:, None]).sum(dim=-1, keepdim=True).to(out)


def _mixed(q: Tensor, k: Tensor, v: Tensor, mix: AttentionMix, present: Tensor | None) -> Tensor:
    """An attention for each group."""
    scale = q.shape[-1] ** -0.5
    channels = v.shape[-1]
    q, k = fold_absence(q, k, present, scale=scale)
    q, k, v = equally_wide(q, k, append(v, v.new_ones(v.shape[2], 1)))
    sizes = _group_sizes(mix)
    outputs, lse = [], []
    for own_k, own_v in zip(k.split(sizes, dim=2), v.split(sizes, dim=2), strict=True):
        if own_k.shape[2] == 0:
            outputs.append(torch.zeros_like(q[..., :channels]))
            lse.append(torch.zeros_like(q[..., 0], dtype=torch.float32))
            continue
        own_out, own_lse = attention_with_lse(q, own_k, own_v, ones=channels, scale=scale)
        outputs.append(own_out[..., :channels])
        lse.append(own_lse)
    shares = mix.shares(torch.stack(lse, dim=-1), present).unsqueeze(-1).to(v)
    return (torch.stack(outputs, dim=3) * shares).sum(dim=3)


def _group_sizes(mix: AttentionMix) -> list[int]:
    """Tokens of each group."""
    if (mix.groups.diff() < 0).any():
        raise ValueError("attention 'folded' mixes groups of tokens that stand in ascending order")
    return mix.groups.bincount(minlength=mix.bias.shape[-1]).tolist()
