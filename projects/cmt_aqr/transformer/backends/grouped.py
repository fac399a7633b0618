"""Attention within each group of tokens, and the sum of the outputs by their shares.

The shares follow from each group's log-sum-exp, so that routing costs next to nothing: the kernels
see the same numbers of channels and of tokens as without it.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value, M token
groups.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from ..routing import Routing
from .channels import fold_absence
from .with_lse import attention_with_lse


class GroupAttention(NamedTuple):
    """Attention within each group."""

    outputs: list[Tensor]
    """of each of the M groups (B, H, Q, E)"""
    lse: Tensor
    """(B, H, Q, M), log-sum-exp of the logits; any finite number for a group without a token"""
    valid_groups: Tensor
    """(B or 1, 1, 1, M), bool: groups of which a sample has a token"""

    def sum(self, shares: Tensor) -> Tensor:
        """(B, H, Q, E), from the share (B, H, Q, M) of each group."""
        # Without a stack of all outputs: the backward pass would keep it beside them.
        return functools.reduce(
            torch.add,
            (
                output * share.unsqueeze(-1).to(output)
                for output, share in zip(self.outputs, shares.unbind(dim=-1), strict=True)
            ),
        )


def grouped_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, token_mask: Tensor | None
) -> Tensor:
    """Attention without a (Q, K) tensor; see :func:`~.dense.dense_attention`.

    Raises:
        ValueError: a bias in windows.
        RuntimeError: no known kernel gives the log-sum-exp on this device or torch.
    """
    if routing.pair_bias is not None:
        raise ValueError("attention 'grouped' cannot compute a bias in windows; use 'window'")
    scale = q.shape[-1] ** -0.5
    q, k = fold_absence(q, k, token_mask, scale=scale)
    groups = attend_by_group(q, k, v, routing=routing, token_mask=token_mask, scale=scale)
    return groups.sum(routing.shares(groups.lse, groups.valid_groups))


def attend_by_group(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    routing: Routing,
    token_mask: Tensor | None,
    scale: float,
) -> GroupAttention:
    """One attention for each group of tokens; see :func:`~.dense.dense_attention`.

    Queries and keys are those of :func:`~.channels.fold_absence`; ``scale`` is that of the logits.

    Raises:
        RuntimeError: no known kernel gives the log-sum-exp on this device or torch.
    """
    sizes = routing.groups.sizes
    outputs, lse = [], []
    for own_k, own_v in zip(k.split(sizes, dim=2), v.split(sizes, dim=2), strict=True):
        if own_k.shape[2] == 0:
            outputs.append(v.new_zeros(*q.shape[:-1], v.shape[-1]))
            lse.append(torch.zeros_like(q[..., 0], dtype=torch.float32))
            continue
        own_out, own_lse = attention_with_lse(q, own_k, own_v, scale=scale)
        outputs.append(own_out)
        lse.append(own_lse)
    return GroupAttention(outputs, torch.stack(lse, dim=-1), routing.groups.valid(token_mask))
