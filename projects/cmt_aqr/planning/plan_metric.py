"""Open-loop scores of plans: distance to the driven path, and collisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.fileio import load
from mmengine.logging import print_log

from ..evaluation.bootstrap import Interval, draw_frames
from ..markdown import table
from .collisions import collides
from .ego_future import COMMANDS, STEP, constant_velocity, planar

SECONDS = (1, 2, 3)
QUANTITIES = {
    'L2': 'L2 (m)',
    'turning_L2': 'L2 when turning (m)',
    'missed': 'missed (%)',
    'collision': 'collisions (%)',
}
MISS_DISTANCE = 2.0
"""Metres from which a waypoint is missed, as in the miss rate of nuScenes' prediction task."""
STRAIGHT = COMMANDS.index('straight')
COMPARED = ('L2', 'collision')
"""quantities whose mean up to 3 s has an interval beside constant velocity's"""
DRAWS = 1000
"""draws of scenes for an interval"""


@METRICS.register_module()
class PlanMetric(BaseMetric):
    """L2 distance and collision rate of plans, beside constant velocity and the driven path.

    Published tables read "at 3 s" in two ways, which this metric keeps apart:

    - ``L2_at_3s``: mean distance of the waypoint at 3 s (as UniAD);
    - ``L2_to_3s``: mean over the waypoints up to 3 s of their mean distance (as ST-P3 and VAD).

    ``collision_at_3s`` and ``collision_to_3s`` are the same readings of the share of plans whose
    waypoint collides with an annotated box at that time, in percent; see
    :func:`~projects.cmt_aqr.planning.collisions.collides`. The rows ``driven`` give the collisions
    of the ground truth itself, which its boxes and the grid cause. ``turning`` is the frames whose
    command is not straight, and ``missed`` the share of waypoints that are :data:`MISS_DISTANCE` or
    more away, in percent.

    ``L2_less_constant_velocity`` and ``collision_less_constant_velocity`` are the readings up to
    3 s minus those of constant velocity, and ``_low`` and ``_high`` the ends of their 95 %
    interval: a paired bootstrap over scenes, since the frames of one resemble each other.

    Waypoints beyond the end of the scene do not count, and neither does a frame without a previous
    keyframe, whose speed is unknown.

    Args:
        ann_file: info file with ego futures; that of the dataset by default.
        collect_device: as in mmengine.
        prefix: of the scores' names.
    """

    default_prefix = 'plan'

    def __init__(
        self,
        *,
        ann_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Keeps the plan of every sample."""
        for sample in data_samples:
            self.results.append((sample['token'], sample['ego_plan'].cpu().numpy()))

    def compute_metrics(self, results: list[tuple[str, np.ndarray]]) -> dict[str, float]:
        """Scores of the plans and of the controls; logs them as a table."""
        infos = [self.infos[token] for token, _ in results]
        futures = [info['ego_future'] for info in infos]
        driven = np.stack([future['waypoints'] for future in futures])
        status = np.stack([future['status'] for future in futures])
        known = np.isfinite(status).all(axis=1)
        mask = np.stack([future['mask'] for future in futures]) & known[:, None]
        plans = {
            'plan': np.stack([plan for _, plan in results]),
            'constant velocity': constant_velocity(
                np.where(known, status[:, 0], 0), horizon=driven.shape[1]
            ),
            'driven': driven,
        }
        turning = np.array([future['command'] != STRAIGHT for future in futures])
        boxes = [self._future_boxes(info) for info in infos]
        values, rows = {}, {}
        for name, plan in plans.items():
            distance = np.linalg.norm(plan[..., :2] - driven[..., :2], axis=-1)
            collision = 100.0 * _collisions(plan, boxes, mask)
            values[name] = dict(L2=distance, collision=collision)
            rows[name] = {
                **_readings('L2', distance, mask),
                **_readings('missed', 100.0 * (distance >= MISS_DISTANCE), mask),
                **_readings('collision', collision, mask),
                **_readings('turning_L2', distance, mask & turning[:, None]),
            }
        plan, steady = values['plan'], values['constant velocity']
        scenes = [info['scene'] for info in infos]
        differences = {
            quantity: _difference(plan[quantity] - steady[quantity], mask, scenes)
            for quantity in COMPARED
        }
        lines = [_table(rows), _compared(differences), _counts(mask, turning)]
        print_log('\n' + '\n'.join(lines), logger='current')
        scores = {
            (key if name == 'plan' else f'{name} {key}').replace(' ', '_'): value
            for name, row in rows.items()
            for key, value in row.items()
        }
        for quantity, (value, interval) in differences.items():
            name = f'{quantity}_less_constant_velocity'
            scores |= {name: value, f'{name}_low': interval.low, f'{name}_high': interval.high}
        return scores

    @cached_property
    def infos(self) -> dict[str, dict]:
        """Infos of all samples by token.

        Raises:
            ValueError: they have no futures.
        """
        ann_file = self.ann_file or self.dataset_meta['ann_file']
        infos = load(ann_file)['data_list']
        if not infos or not {'ego_future', 'scene'} <= infos[0].keys():
            raise ValueError(
                f'{ann_file} has no ego futures: python tools/create_data.py ROOT --with-ego-future'
            )
        return {info['token']: info for info in infos}

    def _future_boxes(self, info: Mapping) -> list[np.ndarray]:
        """Annotated boxes (N, 5) at each future keyframe, in the ego frame of this one."""
        to_ego = np.linalg.inv(np.asarray(info['ego2global']))
        boxes = []
        for token in info['future_tokens']:
            later = self.infos.get(token)
            boxes.append(np.zeros((0, 5)) if later is None else _boxes(later, to_ego))
        return boxes


def _boxes(info: Mapping, to_ego: np.ndarray) -> np.ndarray:
    """(N, 5): x, y, length, width and yaw of the annotated boxes of the detected classes."""
    kept = [i['bbox_3d'] for i in info.get('instances', ()) if i['bbox_label_3d'] >= 0]
    boxes = np.array(kept, dtype=np.float64).reshape(-1, 7)
    lidar = np.asarray(info['ego2global']) @ np.asarray(info['lidar_points']['lidar2ego'])
    poses = np.tile(np.eye(4), (len(boxes), 1, 1))
    poses[:, :3, 3] = boxes[:, :3]
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    poses[:, 0, 0], poses[:, 0, 1], poses[:, 1, 0], poses[:, 1, 1] = cos, -sin, sin, cos
    x, y, yaw = planar(to_ego @ lidar @ poses).T
    return np.stack([x, y, boxes[:, 3], boxes[:, 4], yaw], axis=1)


def _collisions(
    plan: np.ndarray, boxes: Sequence[Sequence[np.ndarray]], mask: np.ndarray
) -> np.ndarray:
    """(N, T), bool: whether each waypoint of each plan collides; False where there is no mask."""
    hits = np.zeros(mask.shape, dtype=bool)
    for sample, step in zip(*np.nonzero(mask), strict=True):
        hits[sample, step] = collides(plan[sample, step], boxes[sample][step])
    return hits


def _readings(name: str, values: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Mean at and up to 1, 2 and 3 s of values (N, T); NaN without any waypoint."""
    count = mask.sum(axis=0)
    total = np.where(mask, values, 0).sum(axis=0)
    means = np.where(count, total / np.maximum(count, 1), np.nan)
    at = {f'{name}_at_{s}s': float(means[round(s / STEP) - 1]) for s in SECONDS}
    to = {f'{name}_to_{s}s': float(means[: round(s / STEP)].mean()) for s in SECONDS}
    return at | to


def _difference(
    values: np.ndarray, mask: np.ndarray, scenes: Sequence[str]
) -> tuple[float, Interval]:
    """Mean of values (N, T) over the waypoints up to 3 s, and its bootstrap interval.

    Args:
        values: differences of two plans.
        mask: (N, T) waypoints that count.
        scenes: scene of each of the N samples.
    """
    names, scene = np.unique(scenes, return_inverse=True)
    steps = round(SECONDS[-1] / STEP)
    sums, counts = np.zeros((2, len(names), steps))
    np.add.at(sums, scene, np.where(mask, values, 0)[:, :steps])
    np.add.at(counts, scene, mask[:, :steps])
    drawn = np.concatenate([np.ones((1, len(names))), draw_frames(len(names), DRAWS, seed=0)])
    with np.errstate(invalid='ignore'):
        means = (drawn @ sums / (drawn @ counts)).mean(axis=1)
    finite = means[1:][np.isfinite(means[1:])]
    return float(means[0]), Interval.of(finite) if len(finite) else Interval(np.nan, np.nan)


def _compared(differences: Mapping[str, tuple[float, Interval]]) -> str:
    cells = (
        f'{QUANTITIES[quantity]} {value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]'
        for quantity, (value, interval) in differences.items()
    )
    return f'plan minus constant velocity, up to {SECONDS[-1]} s: {", ".join(cells)}'


def _table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """One row for each quantity and plan, one column for each reading."""
    readings = [f'{reading}_{seconds}s' for reading in ('at', 'to') for seconds in SECONDS]
    head = ['', *(reading.replace('_', ' ').replace('to', 'up to') for reading in readings)]
    body = [
        [f'{title}, {name}', *(f'{row[f"{quantity}_{reading}"]:.2f}' for reading in readings)]
        for quantity, title in QUANTITIES.items()
        for name, row in rows.items()
    ]
    return table(head, body)


def _counts(mask: np.ndarray, turning: np.ndarray) -> str:
    scored = mask.any(axis=1)
    return (
        f'plans: {len(mask)}, scored {scored.sum()}, with all of {SECONDS[-1]} s '
        f'{mask.all(axis=1).sum()}, turning {(scored & turning).sum()}'
    )
