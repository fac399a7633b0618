"""A hard choice of expert for every query, as in MoME (Park et al., CVPR 2025).

The two numbers of a query are the logits of the experts for LiDAR alone and for cameras alone; that
of the expert for both, which is CMT, is the constant zero. The choice has no gradient: its logits
learn by cross-entropy from one label a frame, the sensor that is left if the other is lost.

Shapes: B batch, Q queries, K tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor

from ...transformer import RoutingForm
from ..router import AdaptiveQueryRouter, RouterOutput
from ..weight_generator import AQRWeightGenerator

BOTH, LIDAR, CAMERA = range(3)
# Far below the logits of trained models; finite in half precision when divided by a head's scale.
MASKED = -4e3
# A sensor with a smaller healthy share is lost; borders of an augmented image count as healthy.
LOST_BELOW = 0.05


@MODELS.register_module()
class ExpertLogits(AQRWeightGenerator):
    """The weight generator without an activation."""

    def activate(self, logits: Tensor, valid_groups: Tensor) -> Tensor:
        """The logits."""
        return logits


@MODELS.register_module()
class HardChoiceRouting(RoutingForm):
    """Masks the tokens of the sensor that the chosen expert of a query does not use.

    A sensor that a sample lacks has the logit zero, and is never chosen alone.
    """

    @torch.no_grad()
    def group_bias(self, weights: Tensor) -> Tensor:
        choice = _with_both(weights).argmax(dim=-1)  # BOTH in a tie
        hidden = torch.stack([choice == CAMERA, choice == LIDAR], dim=-1)
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill(hidden, MASKED)


@MODELS.register_module()
class HardChoiceRouter(AdaptiveQueryRouter):
    """The router with a hard choice of expert; it needs the other two classes of this module.

    Args:
        reliability_weight: factor of the cross-entropy of the choice.
        options: those of :class:`~projects.cmt_aqr.aqr.router.AdaptiveQueryRouter`.

    Raises:
        ValueError: another generator or form, a weight for each camera, or no loss.
    """

    def __init__(self, *, reliability_weight: float = 1.0, **options: Any) -> None:
        super().__init__(reliability_weight=reliability_weight, **options)
        generator, form = self.aqr_weight_generator, self.attention_bias_generator
        if not (
            isinstance(generator, ExpertLogits)
            and isinstance(form, HardChoiceRouting)
            and generator.groups == 'modality'
            and reliability_weight
        ):
            raise ValueError(
                "a hard choice takes an ExpertLogits with groups='modality', a HardChoiceRouting "
                f'and a reliability_weight; given are an {type(generator).__name__} with '
                f'groups={generator.groups!r}, a {type(form).__name__} and {reliability_weight}'
            )

    def reliability_loss(self, output: RouterOutput, health: Tensor) -> Tensor:
        """Mean cross-entropy of the experts with the label of the frame."""
        lidar_lost, camera_lost = self._lost(output, health).unbind(dim=-1)
        label = LIDAR * (camera_lost & ~lidar_lost) + CAMERA * (lidar_lost & ~camera_lost)
        logits = _with_both(output.weights[:, output.denoising_slots :].float())
        return F.cross_entropy(logits.flatten(0, 1), label.expand(logits.shape[:-1]).flatten())

    @staticmethod
    def _lost(output: RouterOutput, health: Tensor) -> Tensor:
        """(B, 1, 2), bool: whether the tokens of a sensor that a sample has are lost."""
        mask = output.tokens.token_mask
        weight = torch.ones_like(health) if mask is None else mask.to(health)
        total, count = (
            torch.stack([own.sum(dim=1) for own in x.split(output.groups.sizes, dim=1)], dim=-1)
            for x in (health * weight, weight)
        )
        return (total < LOST_BELOW * count)[:, None]


def _with_both(logits: Tensor) -> Tensor:
    """(B, Q, 2) -> (B, Q, 3), with the logit zero of the expert for both in front."""
    return F.pad(logits, (1, 0))
