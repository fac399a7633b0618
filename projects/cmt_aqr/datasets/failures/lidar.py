"""Failures of the LiDAR; each acts on the keyframe and on every sweep before they are merged."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from mmcv.ops import points_in_boxes_cpu
from mmdet3d.registry import TRANSFORMS

from .base import DrawnFailure, SensorFailure, random_stream

NUM_RINGS = 32
BEVFUSION_RINGS = (18, 20, 22, 24)
"""BEVFusion's elevation bins {13, 11, 9, 7} from above hold these rings of nuScenes' LiDAR."""


@dataclass(frozen=True)
class DrawnBeamReduction(DrawnFailure):
    """These rings are left."""

    rings: tuple[int, ...]

    def damage_points(self, points, to_keyframe, age):
        """Removes the points of all other rings."""
        return points[np.isin(points[:, 4], self.rings)]

    def lidar_health(self, xy):
        """The share of rings that are left, everywhere."""
        return np.full(xy.shape[:-1], len(self.rings) / NUM_RINGS, dtype=np.float32)


@TRANSFORMS.register_module()
class BeamReduction(SensorFailure):
    """Fewer beams: most rings of the LiDAR are lost.

    | severity | rings left of 32         |
    |----------|--------------------------|
    | 1        | 16: every second, from 1 |
    | 2        | 8: 1, 5, 9, …, 29        |
    | 3        | 4: 1, 9, 17, 25          |

    Severity 3 has the rings of MultiCorrupt (Beemelmanns et al., 2024). BEVFusion (Liu et al.,
    2023) keeps four neighbouring bins of elevation instead, `BEVFUSION_RINGS`, which see far more
    of the objects; those of MoME (Park et al., 2025) are not published.

    Args:
        severity: from 1 to 3.
        seed: not used, all samples lose the same rings.
        rings: the rings left, from 0, the lowest, to 31, in place of the severity's.

    Raises:
        ValueError: for rings that the LiDAR does not have.
    """

    SEVERITIES = tuple(tuple(range(1, NUM_RINGS, NUM_RINGS // count)) for count in (16, 8, 4))

    def __init__(
        self, *, severity: int = 1, seed: int = 0, rings: Sequence[int] | None = None
    ) -> None:
        super().__init__(severity=severity, seed=seed)
        self.rings = self.level if rings is None else tuple(rings)
        if not set(self.rings) <= set(range(NUM_RINGS)):
            raise ValueError(
                f'BeamReduction: rings is {list(self.rings)}; they go from 0 to {NUM_RINGS - 1}'
            )

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnBeamReduction:
        """The same rings for every sample."""
        return DrawnBeamReduction(self.rings)


@dataclass(frozen=True)
class DrawnLidarDrop(DrawnFailure):
    """Cloud lost as a whole."""

    reaches_pasted_objects: ClassVar = True
    mode: str

    def damage_points(self, points, to_keyframe, age):
        """Removes all points, or moves them to the origin of the keyframe."""
        if self.mode == 'empty':
            return points[:0]
        zeros = np.zeros_like(points)
        zeros[:, :3] = np.linalg.inv(to_keyframe)[:3, 3]
        return zeros

    def lidar_health(self, xy):
        """0 everywhere."""
        return np.zeros(xy.shape[:-1], dtype=np.float32)


@TRANSFORMS.register_module()
class LidarDrop(SensorFailure):
    """The LiDAR gives nothing at all.

    One severity. Published code multiplies all points by zero instead, which leaves an occupied
    voxel at the origin (CMT, Yan et al., 2023, and those that build on it, MoME among them):
    ``mode='zeros'``, where points of sweeps keep their time.

    Args:
        severity: 1.
        seed: not used.
        mode: 'empty' removes the points, 'zeros' puts them into the keyframe's origin.

    Raises:
        ValueError: for another mode.
    """

    def __init__(self, *, severity: int = 1, seed: int = 0, mode: str = 'empty') -> None:
        super().__init__(severity=severity, seed=seed)
        if mode not in ('empty', 'zeros'):
            raise ValueError(f"LidarDrop: mode is {mode!r}; it must be 'empty' or 'zeros'")
        self.mode = mode

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnLidarDrop:
        """The same for every sample."""
        return DrawnLidarDrop(self.mode)


@dataclass(frozen=True)
class DrawnLimitedFieldOfView(DrawnFailure):
    """The LiDAR sees forward only."""

    half_angle: float
    """degrees"""

    def damage_points(self, points, to_keyframe, age):
        """Removes the points outside of the field of view, in the cloud's own frame."""
        return points[self._seen(points[:, :2])]

    def lidar_health(self, xy):
        """1 in the field of view and 0 outside."""
        return self._seen(xy).astype(np.float32)

    def _seen(self, xy: np.ndarray) -> np.ndarray:
        azimuth = np.arctan2(xy[..., 0], xy[..., 1])  # from +y, which is forward
        return np.abs(azimuth) <= np.deg2rad(self.half_angle)


@TRANSFORMS.register_module()
class LimitedFieldOfView(SensorFailure):
    """The LiDAR sees only a sector round the forward direction, +y.

    | severity | azimuths left |
    |----------|---------------|
    | 1        | ±90°          |
    | 2        | ±60°          |

    As in MoME (Park et al., 2025) and in the benchmark of Yu et al. (2023).

    Args:
        severity: 1 or 2.
        seed: not used.
    """

    SEVERITIES = (90.0, 60.0)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnLimitedFieldOfView:
        """The same for every sample."""
        return DrawnLimitedFieldOfView(self.level)


@dataclass(frozen=True)
class DrawnObjectFailure(DrawnFailure):
    """The LiDAR sees none of these objects."""

    boxes: np.ndarray
    """(N, 7) float32: x, y, z of the bottom's centre, length, width, height in metres, yaw in
    radians; LiDAR frame of the keyframe"""
    velocity: np.ndarray
    """(N, 2) float32: metres a second along x and y, 0 where it is not known"""

    def damage_points(self, points, to_keyframe, age):
        """Removes the points in the boxes, each moved back to where it was at the cloud's time."""
        places = points[:, :3] @ to_keyframe[:3, :3].T + to_keyframe[:3, 3]
        boxes = self.boxes.copy()
        boxes[:, :2] -= self.velocity * age
        return points[~_in_any_box(places, boxes)]

    def lidar_health(self, xy):
        """0 on the ground under the boxes, 1 elsewhere."""
        places = np.concatenate([xy, np.zeros_like(xy[..., :1])], axis=-1).reshape(-1, 3)
        columns = self.boxes.copy()
        columns[:, 2], columns[:, 5] = -1.0, 2.0  # round the height of the places
        return (~_in_any_box(places, columns)).reshape(xy.shape[:-1]).astype(np.float32)


@TRANSFORMS.register_module()
class ObjectFailure(SensorFailure):
    """The LiDAR loses all points in annotated boxes, in some of the frames.

    | severity | frames |
    |----------|--------|
    | 1        | 50 %   |

    As in MoME (Park et al., 2025). Boxes are those of the keyframe; for a sweep each is moved back
    along its velocity by the sweep's age, so that a moving object vanishes from its own place.
    Objects that the dataset leaves out, such as those without a LiDAR point, stay; those of classes
    that are annotated but not detected vanish too.

    Args:
        severity: 1.
        seed: of the choice of frames.
    """

    SEVERITIES = (0.5,)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnObjectFailure | None:
        """The annotated boxes of the sample, or None in a frame that is spared.

        Raises:
            KeyError: for a sample without annotations.
        """
        if rng.random() >= self.level:
            return None
        return DrawnObjectFailure(*_annotated(results))


def _annotated(results: dict) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 7) and velocities (N, 2) of a sample, in training or at test time."""
    info = results.get('ann_info') or results.get('eval_ann_info')
    if info is None:
        raise KeyError(
            f'ObjectFailure: sample {results["token"]} has neither ann_info nor eval_ann_info, '
            'which hold the boxes; the dataset gives the latter with load_eval_anns=True'
        )
    boxes = info['gt_bboxes_3d'].tensor.numpy().astype(np.float32)
    velocity = boxes[:, 7:9] if boxes.shape[1] >= 9 else np.zeros((len(boxes), 2), np.float32)
    return boxes[:, :7].copy(), np.nan_to_num(velocity)


def _in_any_box(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether each of N points (N, 3) is in one of the boxes (M, 7)."""
    if not len(points) or not len(boxes):
        return np.zeros(len(points), dtype=bool)
    batch = (torch.from_numpy(np.ascontiguousarray(a, np.float32))[None] for a in (points, boxes))
    return points_in_boxes_cpu(*batch)[0].any(dim=1).numpy()


@dataclass(frozen=True)
class DrawnPointsDrop(DrawnFailure):
    """Each point is lost with the same probability."""

    share: float
    noise: int

    def damage_points(self, points, to_keyframe, age):
        """Removes the share of points, other ones in every cloud."""
        rng = random_stream(self.noise, zlib.crc32(points.tobytes()))
        return points[rng.random(len(points)) >= self.share]

    def lidar_health(self, xy):
        """The share of points that are left, everywhere."""
        return np.full(xy.shape[:-1], 1 - self.share, dtype=np.float32)


@TRANSFORMS.register_module()
class PointsDrop(SensorFailure):
    """The LiDAR loses points at random.

    | severity | points lost |
    |----------|-------------|
    | 1        | 70 %        |
    | 2        | 80 %        |
    | 3        | 90 %        |

    As MultiCorrupt's points reducing (Beemelmanns et al., 2024), but drawn for each point on its
    own, and for each sweep apart.

    Args:
        severity: from 1 to 3.
        seed: of the choice of points.
    """

    SEVERITIES = (0.7, 0.8, 0.9)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnPointsDrop:
        """A number from which the points of each cloud are chosen."""
        return DrawnPointsDrop(self.level, int(rng.integers(2**32)))
