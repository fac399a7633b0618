"""The reliability loss: weights that follow the health of a query's windows.

Shapes: B batch, Q queries, K tokens, M token groups.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .health import window_health
from .windows import Windows


def reliability_loss(
    weights: Tensor,
    health: Tensor,
    *,
    windows: Sequence[Windows],
    valid_groups: Tensor,
    activation: str,
    denoising_slots: int = 0,
) -> Tensor:
    """Mean squared distance of weights from the targets that :func:`target_weights` gives.

    The mean goes over the pairs of a query and a group with at least one token in the query's
    windows: a query that no camera sees has no target for cameras.

    Args:
        weights: (B, Q, M).
        health: (B, K), healthy share of the input of every token.
        windows: of every sensor that is present.
        valid_groups: (B or 1, 1, M), bool: groups of which a sample has a token.
        activation: of the weights.
        denoising_slots: number of denoising queries, the first ones. They do not count: they stand
            at the boxes, or in a corner, and do not exist at test time.
    """
    share, known = (x[:, denoising_slots:] for x in window_health(health, windows, weights.shape))
    weights = weights[:, denoising_slots:].float()
    error = (weights - target_weights(share, valid_groups, activation)).square()
    return (error * known).sum() / known.sum().clamp(min=1)


def target_weights(share: Tensor, valid_groups: Tensor, activation: str) -> Tensor:
    """Target of the weights for a healthy share: zero, which is CMT, where everything is healthy.

    With the healthy share h the target is h - 1 for ``tanh`` and half of it for ``sigmoid``, so
    that damage suppresses. For ``softmax`` it is h over its sum, less the even share of the valid
    groups; zero where nothing is healthy.

    Args:
        share: (B, Q, M).
        valid_groups: (B or 1, 1, M), bool: groups of which a sample has a token.
        activation: ``tanh``, ``sigmoid`` or ``softmax``.
    """
    if activation == 'tanh':
        return share - 1
    if activation == 'sigmoid':
        return (share - 1) / 2
    healthy = share * valid_groups
    total = healthy.sum(dim=-1, keepdim=True)
    even = valid_groups / valid_groups.sum(dim=-1, keepdim=True)
    return healthy.div(total).where(total > 0, even) - even
