"""Windows around the projection of each query, on the BEV map and in every camera that sees it.

A window is a list of tokens: Q * W numbers instead of a map over all K tokens.

Shapes: B batch, V cameras, Q queries, P windows, W cells of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry import Projection, bev_cells, image_cells, visible_pairs
from .layout import TokenLayout


class Windows(NamedTuple):
    """Windows of queries on the maps of one sensor; a query may have none, or several."""

    sample: Tensor
    """(P,): sample of the window's query"""
    query: Tensor
    """(P,): the query"""
    group: Tensor
    """(P,): 0 for LiDAR, 1 to V for the cameras"""
    token: Tensor
    """(P, W): index of each cell in the token sequence; any valid index outside of the map"""
    inside: Tensor
    """(P, W), bool: whether the cell is on the map"""
    offset: Tensor
    """(P, W, 2): from the query's place to the centre of the cell, columns and rows"""

    def gaussian(self, sigma: float) -> Tensor:
        """(P, W) Gaussian of the distance: 1 at the query's place, 0 outside of the map.

        Args:
            sigma: standard deviation, as a share of the window's side.
        """
        side = self.token.shape[1] ** 0.5
        distance = self.offset.square().sum(dim=-1)
        return self.inside * torch.exp(-distance / (2 * (sigma * side) ** 2))


def bev_windows(
    points: Tensor,
    layout: TokenLayout,
    *,
    size: int,
    point_cloud_range: Sequence[float],
    cell_size: tuple[float, float],
) -> Windows:
    """One window of size x size BEV cells around every query.

    Args:
        points: (B, Q, 3), metres in the LiDAR frame.
        layout: of the tokens; with a BEV map.
        size: cells along each side.
        point_cloud_range: metres, see :mod:`projects.cmt_aqr.geometry`.
        cell_size: metres along x and y.
    """
    batch_size, num_queries = points.shape[:2]
    samples = torch.arange(batch_size, device=points.device)[:, None]
    samples = samples.expand(-1, num_queries).flatten()
    queries = torch.arange(num_queries, device=points.device).expand(batch_size, -1).flatten()
    cells = bev_cells(points, point_cloud_range, cell_size).flatten(0, 1)
    index, inside, offset = _window(cells, layout.bev, size)
    return Windows(samples, queries, torch.zeros_like(samples), index, inside, offset)


def camera_windows(
    projection: Projection,
    camera_mask: Tensor,
    layout: TokenLayout,
    *,
    size: int,
    image_shape: tuple[int, int],
) -> Windows:
    """One window of size x size image cells for every pair of a query and a camera that sees it.

    Args:
        projection: of the B * Q queries into the V cameras.
        camera_mask: (B, V), bool: cameras that a sample has.
        layout: of the tokens; with image maps.
        size: cells along each side.
        image_shape: height and width of the padded images, pixels.
    """
    sample, camera, query = visible_pairs(projection, camera_mask)
    pixels = projection.pixels[sample, camera, query]
    index, inside, offset = _window(
        image_cells(pixels, image_shape, layout.image), layout.image, size
    )
    first = layout.lidar_tokens + camera * layout.tokens_per_camera
    return Windows(sample, query, camera + 1, first[:, None] + index, inside, offset)


def _window(place: Tensor, map_shape: tuple[int, int], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of the window around each place (P, 2), column and row.

    An even window reaches one cell further towards higher columns and rows.

    Returns:
        index on the map, row by row (P, W); whether it is on the map (P, W); offset (P, W, 2).
    """
    height, width = map_shape
    steps = torch.arange(size, device=place.device) - (size - 1) // 2
    rows, columns = torch.meshgrid(steps, steps, indexing='ij')
    cells = place.floor()[:, None] + torch.stack([columns, rows], dim=-1).flatten(0, 1)
    column, row = cells.unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return index.long(), inside, cells + 0.5 - place[:, None]
