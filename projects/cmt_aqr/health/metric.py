"""Metric that collects the health reports of a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..files import dump_json
from .alarm import Reports


@METRICS.register_module()
class HealthMetric(BaseMetric):
    """Mean health of the LiDAR and of each camera over a test, and the reports of all frames.

    The metrics are ``health/lidar`` and ``health/NAME`` for each camera; their names are the
    samples' ``camera_names``, if packed.

    Args:
        out_file: JSON file for the health of each frame by its token; ``None`` writes none.
        collect_device: as in mmengine.

    Attributes:
        reports: of the last evaluation; ``None`` before it, and outside the main process.
    """

    default_prefix = 'health'

    def __init__(self, *, out_file: str | None = None, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.out_file = out_file
        self.reports: Reports | None = None

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Collects the ``pred_health`` and ``gt_health`` of each sample.

        Raises:
            ValueError: a sample has no ``pred_health``.
        """
        for sample in data_samples:
            if 'pred_health' not in sample:
                raise ValueError(
                    'HealthMetric: the model reports no health; give it a health_monitor'
                )
            found, true = sample['pred_health'], sample.get('gt_health')
            count = len(found['cameras'])
            names = sample.get('camera_names') or [f'camera {i}' for i in range(count)]
            result = dict(token=str(sample.get('token', sample.get('sample_idx'))), names=names)
            for name, health in (('found', found), ('true', true)):
                known = health is not None
                result[name] = (
                    float(health['lidar']) if known else np.nan,
                    health['cameras'].cpu().numpy() if known else np.full(count, np.nan),
                )
            self.results.append(result)

    def compute_metrics(self, results: Sequence[Mapping]) -> dict[str, float]:
        """Means over all frames."""
        names = list(dict.fromkeys(name for result in results for name in result['names']))
        columns = {
            kind: np.array([_row(result, kind, names) for result in results])
            for kind in ('found', 'true')
        }
        self.reports = Reports(
            tokens=np.array([result['token'] for result in results]),
            names=np.array(names),
            lidar=columns['found'][:, 0],
            cameras=columns['found'][:, 1:],
            lidar_sound=columns['true'][:, 0],
            cameras_sound=columns['true'][:, 1:],
        )
        if self.out_file is not None:
            by_token = {result['token']: _by_name(result) for result in results}
            dump_json(Path(self.out_file), by_token)
        means = np.nanmean(columns['found'], axis=0)
        return dict(zip(['lidar', *names], map(float, means), strict=True))


def _by_name(result: Mapping) -> dict[str, float]:
    lidar, cameras = result['found']
    return {'lidar': lidar, **dict(zip(result['names'], map(float, cameras), strict=True))}


def _row(result: Mapping, kind: str, names: Sequence[str]) -> list[float]:
    """Health of the LiDAR and of each named camera; NaN for one that the frame lacks."""
    lidar, cameras = result[kind]
    by_name = dict(zip(result['names'], cameras, strict=True))
    return [lidar, *(by_name.get(name, np.nan) for name in names)]
