"""The healthy share of the input of every token, and of every query's windows.

A batch whose samples went through sensor failures has maps of the healthy share of its input, with
cells of the size of a token: one of the BEV over the point-cloud range, and one of every image.

Shapes: B batch, V cameras, Q queries, K tokens, M token groups, h and w of a health map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import TokenLayout
from .windows import Windows


class GroupHealth(NamedTuple):
    """Health of the input of each group of tokens."""

    share: Tensor
    """(B, Q, M): healthy share, 0 to 1; 1 where it is not known"""
    known: Tensor
    """(B, Q, M), bool: whether the query has any cell of the group"""


def token_health(
    health: Mapping[str, Tensor] | None,
    layout: TokenLayout,
    *,
    bev_extent: tuple[float, float] | None,
) -> Tensor:
    """Healthy share of the input of every token.

    Args:
        health: ``lidar`` (B, h, w), rows along y and columns along x over the point-cloud range,
            and ``camera`` (B, V, h, w) over the images; cells and patches of the size of a token.
        layout: of the tokens.
        bev_extent: extent of the BEV map along y and x, relative to the point-cloud range: a grid
            may be declared smaller than the range. Needed with LiDAR.

    Returns:
        (B, K) float32; tokens beyond a map are healthy.

    Raises:
        ValueError: there are no maps, or maps with cells of another size than the tokens'.
    """
    if health is None:
        raise ValueError(
            'the batch has no health, from which the reliability loss learns: pack the samples '
            'with PackHealth, or set aqr.reliability_weight=0'
        )
    parts = []
    if layout.bev is not None:
        # A hair less, for rounding: as many cells as span the range.
        whole = [math.ceil(n / e - 1e-6) for n, e in zip(layout.bev, bev_extent, strict=True)]
        _check_cells('BEV', health['lidar'], layout.bev, list(health['lidar'].shape[1:]) == whole)
        parts.append(fit_map(health['lidar'], layout.bev).flatten(1))
    if layout.image is not None:
        sizes = [*zip(health['camera'].shape[2:], layout.image, strict=True)]
        padded_only = all(n <= tokens < 1.5 * n for n, tokens in sizes)
        _check_cells('image', health['camera'], layout.image, padded_only)
        parts.append(fit_map(health['camera'], layout.image).flatten(1))
    return torch.cat(parts, dim=1)


def window_health(health: Tensor, windows: Sequence[Windows], shape: torch.Size) -> GroupHealth:
    """Mean over the cells of each query's windows; several windows of a group count as one.

    Args:
        health: (B, K), of the tokens.
        windows: of every sensor that is present.
        shape: B, Q, M.

    Returns:
        (B, Q, M); not known for a group without a cell, such as cameras for a query that no camera
        sees.
    """
    total, count = health.new_zeros(shape), health.new_zeros(shape)
    for part in windows:
        place = (part.sample, part.query, part.group.clamp(max=shape[-1] - 1))
        healthy = health[part.sample[:, None], part.token] * part.inside
        total.index_put_(place, healthy.sum(dim=1), accumulate=True)
        count.index_put_(place, part.inside.sum(dim=1).to(count), accumulate=True)
    known = count > 0
    return GroupHealth(torch.where(known, total / count.clamp(min=1), 1), known)


def _check_cells(name: str, maps: Tensor, tokens: Sequence[int], match: bool) -> None:
    if not match:
        raise ValueError(
            f'the {name} health map has {list(maps.shape[-2:])} cells for {list(tokens)} tokens: '
            f'give PackHealth the voxel_size and the strides of the model'
        )


def fit_map(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (..., h, w) cut off, or continued by healthy cells, to (..., rows, columns)."""
    rows, columns = maps.shape[-2:]
    return F.pad(maps, (0, size[1] - columns, 0, size[0] - rows), value=1.0)
