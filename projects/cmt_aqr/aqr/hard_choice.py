"""A hard choice of expert for every query, as MoME makes it (Park et al., CVPR 2025).

The router's two numbers of a query are the logits of LiDAR alone and of cameras alone; that of both
together is zero, which takes nothing from a softmax over three. With zero logits both are chosen,
which is CMT. The choice itself has no gradient: its logits learn by cross-entropy.

Shapes: B batch, Q queries, K tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..transformer.attention_bias import AttentionBias
from ..transformer.token_groups import TokenGroups
from .health import GroupHealth

EXPERTS = ('both', 'lidar', 'camera')
# Logits of trained models differ by hundreds, so that nothing is left of a token; and in half
# precision it is still a number when divided by the scale of a head of 128 channels.
MASKED = -4e3
# A sensor of which less is healthy has failed as a whole: the borders of an augmented image, which
# have no source, count as healthy.
LOST_BELOW = 0.05


@torch.no_grad()
def choose(logits: Tensor) -> Tensor:
    """Index (B, Q) of each query's expert, from logits (B, Q, 2); both where there is a tie.

    A sensor that is not there has the logit zero, and is never chosen alone.
    """
    return _of_experts(logits).argmax(dim=-1)


def mask_others(choice: Tensor, groups: TokenGroups) -> AttentionBias:
    """Mask of the tokens that the chosen expert of each query does not use.

    Args:
        choice: (B, Q), index into :data:`EXPERTS`.
        groups: tokens of the LiDAR, and of cameras.
    """
    # The expert for one sensor does not see the other one.
    hidden = torch.stack([choice == EXPERTS.index(other) for other in ('camera', 'lidar')], dim=-1)
    masked = torch.zeros(hidden.shape, device=choice.device).masked_fill(hidden, MASKED)
    return AttentionBias(masked, groups, windows=(), limit=-MASKED)


def choice_loss(logits: Tensor, health: GroupHealth) -> Tensor:
    """Mean cross-entropy of the experts: where one sensor is lost as a whole, the other alone.

    Args:
        logits: (B, Q, 2).
        health: of LiDAR and cameras; what is not known is not lost.
    """
    lidar_lost, camera_lost = (health.share < LOST_BELOW).unbind(dim=-1)
    label = torch.zeros_like(lidar_lost, dtype=torch.long)
    label = label.masked_fill(camera_lost & ~lidar_lost, EXPERTS.index('lidar'))
    label = label.masked_fill(lidar_lost & ~camera_lost, EXPERTS.index('camera'))
    label = label.expand(logits.shape[:-1])
    return F.cross_entropy(_of_experts(logits).flatten(0, 1), label.flatten())


def _of_experts(logits: Tensor) -> Tensor:
    """(B, Q, 2) -> (B, Q, 3), with the zero of both in front."""
    return F.pad(logits, (1, 0))
