"""The healthy share of the input of every token, and of every query's windows.

Sensor failures record the healthy share of their input as maps, 1 where nothing is damaged: over
the BEV within the point-cloud range, and over every image. The maps are averaged over the cells of
the tokens.

Shapes: B batch, V cameras, Q queries, K tokens, M token groups, h and w of a health map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..transfer import to_device
from .layout import TokenLayout
from .windows import Windows


class GroupHealth(NamedTuple):
    """Health of the input of each group of tokens."""

    share: Tensor
    """(B, Q, M): healthy share, 0 to 1; 1 where it is not known"""
    known: Tensor
    """(B, Q, M), bool: whether the group has any input there"""


def token_health(
    metas: Sequence[Mapping],
    layout: TokenLayout,
    *,
    bev_extent: tuple[float, float] | None,
    pad_shape: Sequence[int] | None,
    like: Tensor,
) -> Tensor:
    """Healthy share of the input of every token.

    Args:
        metas: of each sample ``health``, with ``lidar`` (h, w), rows along y and columns along x
            over the point-cloud range, and ``camera`` (V_b, h, w) over the images, V_b at most V;
            and with images ``img_shape``, their height and width before they were padded.
        layout: of the tokens.
        bev_extent: size of the BEV map along y and x, relative to the range: a grid may be declared
            smaller than the range. Needed with LiDAR.
        pad_shape: height and width of the padded images, pixels. Needed with cameras.
        like: gives the device.

    Returns:
        (B, K) float32. Cells beyond a map take the value at its edge, absent cameras have 1.

    Raises:
        ValueError: a sample without ``health``, or one that lacks a sensor.
    """
    samples = []
    for index, meta in enumerate(metas):
        health = _health_of(meta, index, like)
        parts = []
        if layout.bev is not None:
            parts.append(_pool(health['lidar'], layout.bev, bev_extent))
        if layout.image is not None:
            extent = [a / b for a, b in zip(pad_shape[:2], meta['img_shape'][:2], strict=True)]
            cameras = _pool(health['camera'], layout.image, extent)
            absent = layout.num_cameras - len(cameras)
            parts.append(F.pad(cameras, (0, 0, 0, 0, 0, absent), value=1.0))
        samples.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(samples)


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


def _health_of(meta: Mapping, index: int, like: Tensor) -> dict[str, Tensor]:
    health = meta.get('health')
    missing = [name for name in ('lidar', 'camera') if name not in (health or {})]
    if missing:
        raise ValueError(
            f'sample {meta.get("token", f"{index} of the batch")} has no health of {missing}: '
            'for the reliability loss put PackHealth before Pack3DDetInputs and health in its '
            'meta_keys, or set aqr.reliability_weight=0'
        )
    return {name: to_device(health[name], like, torch.float32) for name in ('lidar', 'camera')}


def _pool(health: Tensor, cells: tuple[int, int], extent: Sequence[float]) -> Tensor:
    """Mean of maps (..., h, w) over cells, (..., rows, columns), of any size and extent."""
    rows, columns = (
        _overlap(count, size, span, like=health)
        for count, size, span in zip(cells, health.shape[-2:], extent, strict=True)
    )
    with torch.autocast(health.device.type, enabled=False):  # means of thousands need the precision
        return rows @ health @ columns.T


def _overlap(count: int, size: int, span: float, like: Tensor) -> Tensor:
    """(count, size): share of each cell that lies in each element of a map, along one axis.

    Args:
        count: cells.
        size: elements of the map; the last one extends to the end of the cells.
        span: length of all cells, relative to the map.
        like: gives the device.
    """
    edges = torch.linspace(0, span * size, count + 1, device=like.device)[:, None]
    start = torch.arange(size, device=like.device)
    end = torch.where(start == size - 1, torch.inf, start + 1)
    overlap = (torch.minimum(edges[1:], end) - torch.maximum(edges[:-1], start)).clamp(min=0)
    return overlap / overlap.sum(dim=1, keepdim=True)
