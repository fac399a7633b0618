"""Attention with a number for every pair of a query and a token: the reference.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value, M token
groups.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention_bias import AttentionBias, AttentionGate, AttentionMix, Routing, groups_there


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, present: Tensor | None
) -> Tensor:
    """Attention of every query to every token.

    Args:
        q: (B, H, Q, D).
        k: (B, H, K, D).
        v: (B, H, K, E).
        routing: what the router asks for; the same for all heads.
        present: (B, K), bool: tokens that a sample has; ``None`` for all.

    Returns:
        (B, H, Q, E).
    """
    if isinstance(routing, AttentionBias):
        mask = routing.dense()[:, None].to(q)
        if present is not None:
            mask = mask.masked_fill(~present[:, None, None], -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if present is not None:
        logits = logits.masked_fill(~present[:, None, None], torch.finfo(logits.dtype).min)
    weights = _gated if isinstance(routing, AttentionGate) else _mixed
    return weights(logits, routing, present).to(v) @ v


def _gated(logits: Tensor, gate: AttentionGate, present: Tensor | None) -> Tensor:
    return logits.softmax(dim=-1) * gate.gains[..., gate.groups][:, None]


def _mixed(logits: Tensor, mix: AttentionMix, present: Tensor | None) -> Tensor:
    there = groups_there(mix.groups, mix.num_groups, present)
    members = [mix.groups == group for group in range(mix.num_groups)]
    lse = torch.stack([logits[..., own].logsumexp(dim=-1) for own in members], dim=-1)
    # A group without tokens has no share, whatever stands here; a number that is not one stays.
    shares = mix.shares(lse.masked_fill(lse.isneginf(), 0), there)
    weights = torch.empty_like(logits)
    for group, own in enumerate(members):
        weights[..., own] = logits[..., own].softmax(dim=-1) * shares[..., group, None]
    return weights
