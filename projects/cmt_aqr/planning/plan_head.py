"""Base of the heads that plan: status and command as input, waypoints as output, and the L1 loss.

Shapes: B batch, T waypoints, C channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from .ego_future import COMMANDS, HORIZON

if TYPE_CHECKING:
    from ..head import HeadOutput
    from ..transformer import CmtTransformer

STATUS = 2
"""speed in m/s and turn rate in rad/s"""


class PlanHead(BaseModule):
    """A head that regresses the ego vehicle's next waypoints.

    Outputs are steps between waypoints, whose sums are the waypoints: so all outputs are of one
    size. The last layer starts at zero, with which the vehicle stands still.

    Args:
        embed_dims: C.
        horizon: T.
        use_status: whether the ego vehicle's status is an input.
        use_command: whether the driving command is an input.
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        horizon: int = HORIZON,
        use_status: bool = False,
        use_command: bool = False,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.use_status = use_status
        self.use_command = use_command
        self.ego_projector = None
        if inputs := STATUS * use_status + len(COMMANDS) * use_command:
            self.ego_projector = nn.Sequential(
                nn.Linear(inputs, embed_dims),
                nn.ReLU(inplace=True),
                nn.Linear(embed_dims, embed_dims),
            )
        self.waypoint_queries = nn.Parameter(torch.randn(horizon, embed_dims))
        self.to_step = nn.Sequential(nn.LayerNorm(embed_dims), nn.Linear(embed_dims, 3))
        nn.init.zeros_(self.to_step[1].weight)
        nn.init.zeros_(self.to_step[1].bias)

    @abstractmethod
    def forward(
        self, detector: HeadOutput, transformer: CmtTransformer, ego: Mapping[str, Tensor] | None
    ) -> Tensor:
        """(B, T, 3): x and y in metres and yaw in radians, in the ego frame.

        Args:
            detector: output of the detector's head, without denoising queries.
            transformer: the detector's decoder.
            ego: ``status`` (B, 2), NaN where it is unknown, which is taken for zero, and
                ``command`` (B, 3); needed if they are inputs.
        """

    def queries(self, batch_size: int, ego: Mapping[str, Tensor] | None) -> Tensor:
        """(B, T, C): queries of the waypoints, which know status and command if they are inputs.

        Raises:
            ValueError: they are inputs, and the batch has none.
        """
        queries = self.waypoint_queries.expand(batch_size, -1, -1)
        if self.ego_projector is None:
            return queries
        _check_packed(ego)
        # NaN alone marks an unknown status: an infinite one must not pass for a number.
        status = ego['status'].masked_fill(ego['status'].isnan(), 0)
        inputs = [status] * self.use_status + [ego['command']] * self.use_command
        return queries + self.ego_projector(torch.cat(inputs, dim=-1))[:, None]

    def waypoints(self, hidden: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, 3)."""
        return self.to_step(hidden).float().cumsum(dim=1)

    def loss(self, plan: Tensor, ego: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Mean L1 distance of the waypoints (B, T, 3) that the scene has.

        Samples of unknown status do not count where the status is an input.

        Args:
            plan: output of :meth:`forward`.
            ego: ``waypoints`` (B, T, 3), ``mask`` (B, T) and ``status`` (B, 2).

        Raises:
            ValueError: the batch has no futures, or some of another length.
        """
        _check_packed(ego)
        if plan.shape[1] != ego['waypoints'].shape[1]:
            raise ValueError(
                f'planner.horizon is {plan.shape[1]}, but the info files have '
                f'{ego["waypoints"].shape[1]} waypoints: set it to that number'
            )
        mask = ego['mask'][..., None]
        if self.use_status:
            mask = mask * ~ego['status'].isnan().any(dim=-1)[:, None, None]
        distance = (plan - ego['waypoints']).abs() * mask
        return {'loss_plan': distance.sum() / (plan.shape[-1] * mask.sum()).clamp(min=1)}


def _check_packed(ego: Mapping[str, Tensor] | None) -> None:
    if ego is None:
        raise ValueError(
            "the planner needs the ego vehicle's status and future, and the batch has none: add "
            'them to the info files by tools/create_data.py ROOT --with-ego-future, and pack the '
            'samples with PackEgoFuture'
        )
