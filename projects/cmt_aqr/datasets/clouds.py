"""Clouds of any columns as the five channels of the model: x, y, z, intensity and ring.

Where a cloud has a time for each point, a sixth channel has it, in seconds before the cloud's own
timestamp.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.logging import print_log

from ..samples import sample_name

CHANNELS = ('x', 'y', 'z', 'intensity', 'ring')
# Number of clouds in this process that had points with NaN or infinite values.
_damaged_clouds = 0


def columns_of(results: Mapping, load_dim: int) -> tuple[str, ...]:
    """Names of the columns of a sample's clouds.

    Args:
        results: the sample, with ``point_columns`` if its info file declares them.
        load_dim: number of columns without a declaration, in nuScenes' order.
    """
    if 'point_columns' in results:
        return tuple(results['point_columns'])
    return (*CHANNELS, *['unused'] * load_dim)[:load_dim]


def arrange(values: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    """Returns the channels of a cloud, zero where it has no such column.

    Args:
        values: the numbers of a file, point by point.
        columns: names of its columns.

    Returns:
        (N, 5), or (N, 6) with a column ``time``; float32.

    Raises:
        ValueError: the numbers do not fit the columns.
    """
    remedy = (
        'name the columns of the file in order as metainfo.point_columns of the info file, those '
        'that have no such meaning as unused (without it: load_dim of the loader)'
    )
    listed = f'{len(columns)} columns ({", ".join(columns)})'
    if values.size % len(columns):
        raise ValueError(f'its {values.size} numbers are not whole points of {listed}; {remedy}')
    table = values.reshape(-1, len(columns))
    channels = (*CHANNELS, 'time') if 'time' in columns else CHANNELS
    points = _choose_columns(table, columns, channels)
    for name, wrong in (
        ('intensity', points[:, 3] < 0),
        # Not `% 1`, which takes seven times as long.
        ('ring', (points[:, 4] < 0) | (np.trunc(points[:, 4]) < points[:, 4])),
    ):
        if wrong.any():
            kind = 'is negative' if name == 'intensity' else 'is not a whole number from 0'
            raise ValueError(
                f'read as {listed}, {name} {kind} in {wrong.sum():,} of {len(points):,} points; '
                f'{remedy}'
            )
    return points


def _choose_columns(
    table: np.ndarray, columns: Sequence[str], channels: Sequence[str]
) -> np.ndarray:
    """(N, columns) -> a copy (N, channels), zero where there is no such column."""
    if tuple(columns[: len(channels)]) == tuple(channels):
        return table[:, : len(channels)].astype(np.float32)
    points = np.zeros((len(table), len(channels)), dtype=np.float32)
    for place, name in enumerate(channels):
        if name in columns:
            points[:, place] = table[:, columns.index(name)]
    return points


def finite(results: Mapping, path: str, points: np.ndarray) -> np.ndarray:
    """Returns the points (N, C) without those that have a value that is not finite.

    The first such cloud in a process is logged as a warning, then the tenth, the hundredth, ...
    """
    global _damaged_clouds
    values = np.isfinite(points)
    if values.all():  # takes a tenth of the time of the rows
        return points
    kept = values.all(axis=1)
    _damaged_clouds += 1
    if np.log10(_damaged_clouds) % 1 == 0:
        print_log(
            f'sample {sample_name(results)}: {path} has NaN or infinite values in '
            f'{(~kept).sum():,} of {len(points):,} points, which are left out; clouds with such '
            f'points so far in this process: {_damaged_clouds:,}',
            logger='current',
            level=logging.WARNING,
        )
    return points[kept]
