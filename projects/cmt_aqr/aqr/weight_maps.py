"""The weights of queries rendered as maps over the BEV and over every camera.

A query adds a Gaussian around its place, cut off at its window. The maps are sums over windows,
Q * W numbers; there is no map of a single query.

Shapes: B batch, V cameras, Q queries, K cells of all maps, M token groups, P windows, W cells of a
window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .layout import TokenLayout
from .windows import Windows


class WeightMaps(NamedTuple):
    """Weights at the places of the queries."""

    mean: Tensor
    """(B, K): mean weight of the queries whose windows contain a cell, weighted by their Gaussians;
    zero without such a query"""
    coverage: Tensor
    """(B, K): sum of the Gaussians; 1 at the place of an isolated query"""

    @property
    def faded(self) -> Tensor:
        """(B, K): the mean, fading to zero with the distance from queries."""
        return self.mean * self.coverage.clamp(max=1)


def render_weights(
    weights: Tensor, windows: Sequence[Windows], layout: TokenLayout, *, sigma: float = 0.25
) -> WeightMaps:
    """Render every query's weights for a sensor on the maps of this sensor.

    The cells need not be the decoder's tokens: windows and layout of a finer grid give finer maps.

    Args:
        weights: (B, Q, M), LiDAR first; of each camera or of all cameras together.
        windows: of every sensor that is present, each sensor once.
        layout: of the cells that the windows index.
        sigma: standard deviation of the Gaussian, as a share of the window's side.

    Returns:
        Maps in float32, differentiable with respect to the weights.
    """
    num_cells = layout.lidar_tokens + layout.num_cameras * layout.tokens_per_camera
    with torch.autocast(weights.device.type, enabled=False):  # sums of many need the precision
        weights = weights.float()
        total = weights.new_zeros(len(weights), num_cells)
        coverage = torch.zeros_like(total)
        for part in windows:
            group = part.group.clamp(max=weights.shape[-1] - 1)
            weight = weights[part.sample, part.query, group][:, None]
            gaussian = part.gaussian(sigma).to(weight)
            place = (part.sample[:, None].expand_as(part.token), part.token)
            total = total.index_put(place, gaussian * weight, accumulate=True)
            coverage = coverage.index_put(place, gaussian, accumulate=True)
        return WeightMaps(total / torch.where(coverage > 0, coverage, 1), coverage)
