"""The Adaptive Query Router, after MoME (Park et al., CVPR 2025): steers queries between sensors.

Shapes: B batch, V cameras, Q queries (denoising queries included), K tokens, C channels, M token
groups.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from ..cameras import Cameras
from ..geometry import VoxelGrid, project, unit_to_metres
from ..transformer import GateRouting, Routing, TokenGroups
from ..transformer.routing import MODALITIES
from .health import token_health
from .layout import TokenLayout, Tokens
from .reliability import reliability_loss
from .weight_generator import AQRWeightGenerator
from .windows import Windows, bev_windows, camera_windows


class RouterOutput(NamedTuple):
    """The router's weights for a batch, and the inputs of the decoder that follow from them."""

    tokens: Tokens
    """the tokens that the decoder attends to"""
    routing: Routing | None
    """the request to cross-attention; ``None`` leaves it unchanged"""
    weights: Tensor
    """(B, Q, M)"""
    windows: list[Windows]
    """windows on the map of every sensor in the batch"""
    groups: TokenGroups
    """the M groups of tokens"""
    denoising_slots: int
    """number of denoising queries, which are the first ones"""


@MODELS.register_module()
class AdaptiveQueryRouter(nn.Module):
    """Weighs the sensors for each query, and routes its cross-attention by the weights.

    A query gets a window on the BEV map and one in every camera that sees it. The weight generator
    makes weights from the tokens in these windows; the routing form applies them to attention.
    With weights of zero, as at the start, the model is plain CMT.

    Args:
        embed_dims: C; the head gives it.
        num_heads: heads of the decoder; the head gives it.
        point_cloud_range: metres, see :mod:`projects.cmt_aqr.geometry`; the head gives it.
        voxel_grid: grid of the voxels; the head gives it.
        windows: cells along each side of a query's window, for ``lidar`` and ``camera``.
        weight_generator: config of the weight generator, by default an
            :class:`~projects.cmt_aqr.aqr.weight_generator.AQRWeightGenerator`.
        routing: config of the routing form, by default a
            :class:`~projects.cmt_aqr.transformer.routing.GateRouting`. ``None`` leaves attention
            unchanged, for a subclass that uses the weights otherwise.
        reliability_weight: factor of the reliability loss, see
            :func:`~projects.cmt_aqr.aqr.reliability.reliability_loss`. 0 trains without it; else
            batches need ``health``, see :func:`~projects.cmt_aqr.aqr.health.token_health`.

    Raises:
        ValueError: malformed windows, no voxel grid, or a negative weight of the loss.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_heads: int,
        point_cloud_range: Sequence[float],
        voxel_grid: VoxelGrid | None,
        windows: Mapping[str, int],
        weight_generator: Mapping,
        routing: Mapping | None,
        reliability_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if set(windows) != set(MODALITIES) or min(windows.values()) < 1:
            raise ValueError(
                f'aqr.windows is {dict(windows)}; it must give {list(MODALITIES)} a number of '
                'cells from 1 on'
            )
        if voxel_grid is None:
            raise ValueError(
                'aqr needs voxel_grid to find the BEV cell of a query; CmtDetector gives it, from '
                'data_preprocessor.voxel_layer and pts_middle_encoder'
            )
        if reliability_weight < 0:
            raise ValueError(
                f'aqr.reliability_weight is {reliability_weight}; it must be 0 or more'
            )
        self.point_cloud_range = tuple(point_cloud_range)
        self.voxel_grid = voxel_grid
        self.window_sizes = dict(windows)
        self.reliability_weight = reliability_weight
        given = {'type': AQRWeightGenerator, 'embed_dims': embed_dims}
        self.aqr_weight_generator = MODELS.build({**given, **weight_generator})
        # Released checkpoints and learning rates of recipes know the form by this name.
        self.attention_bias_generator = None
        if routing is not None:
            given = {'type': GateRouting, 'num_heads': num_heads}
            self.attention_bias_generator = MODELS.build({**given, **routing})

    def forward(
        self,
        query_pos: Tensor,
        reference: Tensor,
        tokens: Tokens,
        cameras: Cameras | None,
        denoising_slots: int = 0,
    ) -> RouterOutput:
        """Weigh the sensors for each query.

        Args:
            query_pos: (B, Q, C), query embedding.
            reference: (B, Q, 3), reference points in the unit range.
            tokens: of the batch.
            cameras: of the batch, or ``None`` without images.
            denoising_slots: number of denoising queries, which are the first ones.
        """
        windows = self.find_windows(reference, cameras, tokens.layout)
        weights = self.aqr_weight_generator(
            query_pos,
            tokens.features + tokens.position,
            tokens.features,
            layout=tokens.layout,
            windows=windows,
            camera_mask=None if cameras is None else cameras.camera_mask,
        )
        groups = tokens.layout.groups(self.aqr_weight_generator.groups, weights.device)
        routing = None
        if self.attention_bias_generator is not None:
            routing = self.attention_bias_generator(weights, groups=groups, windows=windows)
        return RouterOutput(tokens, routing, weights, windows, groups, denoising_slots)

    @torch.no_grad()
    def find_windows(
        self, reference: Tensor, cameras: Cameras | None, layout: TokenLayout
    ) -> list[Windows]:
        """Windows of every query (B, Q, 3), on the BEV map and in every camera that sees it.

        A learned reference point may leave the range; its query then looks from the border.
        """
        points = unit_to_metres(reference.clamp(0, 1), self.point_cloud_range)
        windows = []
        if layout.bev is not None:
            windows.append(
                bev_windows(
                    points,
                    layout,
                    size=self.window_sizes['lidar'],
                    point_cloud_range=self.point_cloud_range,
                    cell_size=self.voxel_grid.cell_size(layout.bev),
                )
            )
        if layout.image is not None:
            windows.append(
                camera_windows(
                    project(points, cameras.lidar2img, cameras.image_shape),
                    cameras.camera_mask,
                    layout,
                    size=self.window_sizes['camera'],
                    image_shape=cameras.image_shape,
                )
            )
        return windows

    def loss(self, output: RouterOutput, health: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The reliability loss, if it has a weight.

        Args:
            output: of :meth:`forward`.
            health: maps of the batch, see :func:`.health.token_health`.
        """
        if not self.reliability_weight:
            return {}
        layout = output.tokens.layout
        health = token_health(health, layout, bev_extent=self._bev_extent(layout))
        return {'loss_reliability': self.reliability_weight * self.reliability_loss(output, health)}

    def reliability_loss(self, output: RouterOutput, health: Tensor) -> Tensor:
        """Distance of the weights from the health (B, K) of the tokens, without the factor."""
        return reliability_loss(
            output.weights,
            health,
            windows=output.windows,
            valid_groups=output.groups.valid(output.tokens.token_mask)[:, 0],
            activation=self.aqr_weight_generator.activation,
            denoising_slots=output.denoising_slots,
        )

    def _bev_extent(self, layout: TokenLayout) -> tuple[float, float] | None:
        """Size of the BEV map along y and x, relative to the range."""
        if layout.bev is None:
            return None
        x_min, y_min, _, x_max, y_max, _ = self.point_cloud_range
        cell_x, cell_y = self.voxel_grid.cell_size(layout.bev)
        rows, columns = layout.bev
        return rows * cell_y / (y_max - y_min), columns * cell_x / (x_max - x_min)


def rename_router(head: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    """Load checkpoints from before the router was a module of its own."""
    old = (f'{prefix}aqr_weight_generator.', f'{prefix}attention_bias_generator.')
    for key in [key for key in state_dict if key.startswith(old)]:
        state_dict[f'{prefix}router.{key.removeprefix(prefix)}'] = state_dict.pop(key)
