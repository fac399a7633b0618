"""What the router learns from: weights that follow the health of what a query is to look at.

Shapes: B batch, Q queries, K tokens, M token groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..transformer.token_groups import TokenGroups
from .hard_choice import choice_loss
from .health import GroupHealth, frame_health, window_health
from .windows import Windows

LABELS = ('query', 'frame')


class ReliabilityLoss:
    """Squared distance of weights from the targets that :func:`target_weights` gives.

    The mean goes over the pairs of a query and a group that it can see anything of: a query that no
    camera sees has no target for cameras. Weights without an activation are the logits of a hard
    choice, and learn by :func:`~projects.cmt_aqr.aqr.hard_choice.choice_loss`.

    Args:
        activation: of the weights; the head gives it.
        loss_weight: factor of the loss.
        labels: ``query``, the health of a query's own windows; or ``frame``, the mean health of a
            sensor, the same for all queries of a frame. Where whole sensors are dropped, the latter
            is MoME's label (Park et al., CVPR 2025).
        pull_healthy: whether weights of healthy input are pulled to zero; otherwise a pair counts
            by its damaged share, and the weights of healthy input are left free: a positive one may
            be a hint of where to look.
        healthy_from: healthy share from which on input counts as whole; shares below it count in
            proportion. What is left of a thinned cloud may still be the best that there is.

    Raises:
        ValueError: unknown labels, a weight that is not above 0, `healthy_from` outside of (0, 1],
            or a hard choice without a target for healthy input.
    """

    def __init__(
        self,
        *,
        activation: str,
        loss_weight: float = 1.0,
        labels: str = 'query',
        pull_healthy: bool = True,
        healthy_from: float = 1.0,
    ) -> None:
        if labels not in LABELS:
            raise ValueError(f'reliability.labels is {labels!r}; it must be one of {list(LABELS)}')
        if loss_weight <= 0:
            raise ValueError(
                f'reliability.loss_weight is {loss_weight}; it must be above 0. '
                'aqr.reliability=None leaves the loss out'
            )
        if not 0 < healthy_from <= 1:
            raise ValueError(
                f'reliability.healthy_from is {healthy_from}; it must lie above 0 and up to 1'
            )
        if activation == 'none' and not pull_healthy:
            raise ValueError(
                "reliability.pull_healthy is False, but a hard choice (activation='none') has to "
                'be told when both sensors are right; leave it True'
            )
        self.activation = activation
        self.loss_weight = loss_weight
        self.labels = labels
        self.pull_healthy = pull_healthy
        self.healthy_from = healthy_from

    def __call__(
        self,
        weights: Tensor,
        health: Tensor,
        *,
        windows: Sequence[Windows],
        groups: TokenGroups,
        present: Tensor | None = None,
        denoising_slots: int = 0,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            weights: (B, Q, M).
            health: (B, K), healthy share of the input of every token.
            windows: of every sensor that is there.
            groups: the M groups of tokens, as the weights have them.
            present: (B, K), bool: tokens that a sample has; ``None`` for all.
            denoising_slots: the first queries, which do not count: they stand where the boxes are,
                or in a corner, and are not there at test time.
        """
        by_group = self._health(weights, health, windows, groups, present)
        if self.labels == 'query':
            by_group = by_group.from_query(denoising_slots)
        weights = weights[:, denoising_slots:].float()
        if self.activation == 'none':
            return self.loss_weight * choice_loss(weights, by_group)
        error = (weights - self._targets(by_group, groups, present)).square()
        counted = by_group.known.to(error)
        if not self.pull_healthy:
            counted = counted * (1 - by_group.share)
        counted = counted.expand_as(error)
        return self.loss_weight * (error * counted).sum() / counted.sum().clamp(min=1)

    @torch.no_grad()
    def oracle(
        self,
        weights: Tensor,
        health: Tensor,
        *,
        windows: Sequence[Windows],
        groups: TokenGroups,
        present: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, M): the targets in place of the weights; zero where there is no target.

        Args:
            weights: as in a call, and so are the others; only their shape and type count.
        """
        by_group = self._health(weights, health, windows, groups, present)
        targets = self._targets(by_group, groups, present) * by_group.known
        return targets.to(weights).expand_as(weights)

    def _health(
        self,
        weights: Tensor,
        health: Tensor,
        windows: Sequence[Windows],
        groups: TokenGroups,
        present: Tensor | None,
    ) -> GroupHealth:
        """Of every query, or of the frame (B, 1, M)."""
        if self.labels == 'query':
            by_group = window_health(health, windows, weights.shape)
        else:
            by_group = frame_health(health, groups, present)
        return by_group._replace(share=(by_group.share / self.healthy_from).clamp(max=1))

    def _targets(
        self, by_group: GroupHealth, groups: TokenGroups, present: Tensor | None
    ) -> Tensor:
        there = groups.nonempty(present)[:, 0]
        return target_weights(by_group.share, there, self.activation)


def target_weights(share: Tensor, there: Tensor, activation: str) -> Tensor:
    """Weights that a healthy share asks for: zero, which is CMT, where all is healthy.

    With the healthy share h they are h - 1 for ``tanh`` and half of it for ``sigmoid``, so that
    damage suppresses. For ``softmax`` they are h over its sum, less the even share of the groups
    that are there; zero where nothing is healthy.

    Args:
        share: (B, Q or 1, M).
        there: (B or 1, 1, M), bool: groups of which a sample has a token.
        activation: ``tanh``, ``sigmoid`` or ``softmax``.
    """
    if activation == 'tanh':
        return share - 1
    if activation == 'sigmoid':
        return (share - 1) / 2
    healthy = share * there
    total = healthy.sum(dim=-1, keepdim=True)
    even = there / there.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, healthy / total, even) - even
