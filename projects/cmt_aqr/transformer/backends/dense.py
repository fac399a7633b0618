"""Reference implementation of routed attention, with a (Q, K) tensor of weights.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value, M token
groups.
"""

import torch
from torch import Tensor

from ..attention_bias import AttentionBias, AttentionGate, AttentionMix, Routing
from ..kernels import scaled_dot_product_attention


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, present: Tensor | None
) -> Tensor:
    """Attention of every query to every token.

    Args:
        q: (B, H, Q, D).
        k: (B, H, K, D).
        v: (B, H, K, E).
        routing: the request of the router, the same for all heads.
        present: (B, K), bool: tokens that a sample has; ``None`` for all.

    Returns:
        (B, H, Q, E).
    """
    if isinstance(routing, AttentionBias):
        mask = routing.dense()[:, None].to(q)
        if present is not None:
            mask = mask.masked_fill(~present[:, None, None], -torch.inf)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if present is not None:
        logits = logits.masked_fill(~present[:, None, None], torch.finfo(logits.dtype).min)
    weights = _gated if isinstance(routing, AttentionGate) else _mixed
    return weights(logits, routing, present).to(v) @ v


def _gated(logits: Tensor, gate: AttentionGate, present: Tensor | None) -> Tensor:
    return logits.softmax(dim=-1) * gate.gains[..., gate.groups.index][:, None]


def _mixed(logits: Tensor, mix: AttentionMix, present: Tensor | None) -> Tensor:
    by_group = logits.split(mix.groups.sizes, dim=-1)
    lse = torch.stack([own.logsumexp(dim=-1) for own in by_group], dim=-1)
    # A group without tokens has no share, whatever stands here; a number that is not one stays.
    shares = mix.shares(lse.masked_fill(lse.isneginf(), 0), mix.groups.nonempty(present))
    weights = [
        own.softmax(dim=-1) * share[..., None]
        for own, share in zip(by_group, shares.unbind(dim=-1), strict=True)
    ]
    return torch.cat(weights, dim=-1)
