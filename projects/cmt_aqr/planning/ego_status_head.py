"""A plan from the ego vehicle's status alone, the control of every planner with sensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmdet3d.registry import MODELS
from torch import Tensor, nn

from ..transformer.decoder import FeedForward
from .plan_head import PlanHead

if TYPE_CHECKING:
    from ..head import HeadOutput
    from ..transformer import CmtTransformer


@MODELS.register_module()
class EgoStatusHead(PlanHead):
    """A multilayer perceptron on the ego status, as in AD-MLP (Zhai et al., 2023).

    It does not read the detector. AD-MLP also takes the last poses; this one takes the speed and
    turn rate since the previous keyframe.

    Args:
        embed_dims: width.
        num_layers: number of hidden layers; the detector gives that of its decoder.
        feedforward_channels: width inside of a hidden layer.
        options: of :class:`PlanHead`.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_layers: int,
        feedforward_channels: int = 256,
        use_status: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(embed_dims=embed_dims, use_status=use_status, **options)
        self.layers = nn.Sequential(
            *(FeedForward(embed_dims, hidden_dims=feedforward_channels) for _ in range(num_layers))
        )

    def forward(
        self, detector: HeadOutput, transformer: CmtTransformer, ego: Mapping[str, Tensor] | None
    ) -> Tensor:
        """(B, T, 3): see :class:`PlanHead`; of the detector, only the batch size is used."""
        batch_size = detector.states.query_pos.shape[0]
        return self.waypoints(self.layers(self.queries(batch_size, ego)))
