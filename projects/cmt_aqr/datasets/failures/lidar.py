"""Failures of the LiDAR, applied to the keyframe and to every sweep before they are merged."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from mmcv.ops import points_in_boxes_cpu
from mmdet3d.registry import TRANSFORMS

from ...samples import sample_name
from .base import DrawnFailure, SensorFailure, random_stream

BEVFUSION_RINGS = (18, 20, 22, 24)
"""Rings of nuScenes' LiDAR in BEVFusion's elevation bins {13, 11, 9, 7}, counted from above."""


@dataclass(frozen=True)
class DrawnBeamReduction(DrawnFailure):
    """Cloud reduced to some rings."""

    rings: tuple[int, ...]
    num_rings: int

    def damage_points(self, points, to_keyframe, age):
        """Removes the points of all other rings."""
        return points[np.isin(points[:, 4], self.rings)]

    def lidar_health(self, xy):
        """Returns the share of rings that are left, everywhere."""
        return np.full(xy.shape[:-1], len(self.rings) / self.num_rings, dtype=np.float32)


@TRANSFORMS.register_module()
class BeamReduction(SensorFailure):
    """Fewer beams: most rings of the LiDAR are lost.

    | severity | rings left   | of 32 rings        |
    |----------|--------------|--------------------|
    | 1        | every second | 16: 1, 3, 5, …, 31 |
    | 2        | every fourth | 8: 1, 5, 9, …, 29  |
    | 3        | every eighth | 4: 1, 9, 17, 25    |

    Severity 3 has the rings of MultiCorrupt (Beemelmanns et al., 2024). BEVFusion (Liu et al.,
    2023) keeps four neighbouring elevation bins instead, `BEVFUSION_RINGS`, which see far more of
    the objects; the rings of MoME (Park et al., 2025) are not published.

    Args:
        severity: from 1 to 3.
        seed: not used, all samples lose the same rings.
        rings: the rings left, counted from 0, the lowest, in place of those of the severity.
        num_rings: number of rings of the LiDAR; by default ``metainfo.num_rings`` of the info file,
            or else 32, as in nuScenes.

    Raises:
        ValueError: the LiDAR does not have one of the rings, or the clouds have no column of rings.
    """

    SEVERITIES = (2, 4, 8)

    def __init__(
        self,
        *,
        severity: int = 1,
        seed: int = 0,
        rings: Sequence[int] | None = None,
        num_rings: int | None = None,
    ) -> None:
        super().__init__(severity=severity, seed=seed)
        self.rings = rings
        self.num_rings = num_rings
        self._choose(num_rings or 32)

    def _choose(self, number: int) -> DrawnBeamReduction:
        """Returns the rings left of a LiDAR with this number of rings."""
        rings = tuple(range(1, number, self.level) if self.rings is None else self.rings)
        if not set(rings) <= set(range(number)):
            raise ValueError(
                f'BeamReduction: rings is {list(rings)}; they go from 0 to {number - 1}'
            )
        return DrawnBeamReduction(rings, number)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnBeamReduction:
        """Returns the same rings for every sample."""
        if 'ring' not in results.get('point_columns', ('ring',)):
            raise ValueError(
                f'BeamReduction: the clouds of sample {sample_name(results)} have no column ring '
                f'(point_columns is {list(results["point_columns"])}): leave the failure out'
            )
        number = self.num_rings or results.get('num_rings')
        if number is None and 'point_columns' in results:
            raise ValueError(
                f'BeamReduction: the number of beams of sample {sample_name(results)} is unknown: '
                "give it as num_rings in the info file's metainfo"
            )
        return self._choose(number or 32)


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
        """Returns 0 everywhere."""
        return np.zeros(xy.shape[:-1], dtype=np.float32)


@TRANSFORMS.register_module()
class LidarDrop(SensorFailure):
    """Loss of the whole LiDAR; one severity.

    The published code of CMT (Yan et al., 2023) and of its successors, such as MoME, multiplies all
    points by zero instead, which leaves an occupied voxel at the origin: ``mode='zeros'``, in which
    points of sweeps keep their time.

    Args:
        severity: 1.
        seed: not used.
        mode: 'empty' removes the points, 'zeros' moves them to the origin of the keyframe.

    Raises:
        ValueError: ``mode`` is another word.
    """

    def __init__(self, *, severity: int = 1, seed: int = 0, mode: str = 'empty') -> None:
        super().__init__(severity=severity, seed=seed)
        if mode not in ('empty', 'zeros'):
            raise ValueError(f"LidarDrop: mode is {mode!r}; it must be 'empty' or 'zeros'")
        self.mode = mode

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnLidarDrop:
        """Returns the same failure for every sample."""
        return DrawnLidarDrop(self.mode)


@dataclass(frozen=True)
class DrawnLimitedFieldOfView(DrawnFailure):
    """Cloud of a LiDAR that sees only a sector."""

    half_angle: float
    """degrees"""
    forward: float
    """degrees, counter-clockwise from +x"""

    def damage_points(self, points, to_keyframe, age):
        """Removes the points outside of the sector, in the cloud's own frame."""
        return points[self._seen(points[:, :2])]

    def lidar_health(self, xy):
        """Returns 1 in the sector and 0 outside."""
        return self._seen(xy).astype(np.float32)

    def _seen(self, xy: np.ndarray) -> np.ndarray:
        turn = np.deg2rad(self.forward)
        ahead = xy[..., 0] * np.cos(turn) + xy[..., 1] * np.sin(turn)
        left = xy[..., 1] * np.cos(turn) - xy[..., 0] * np.sin(turn)
        return np.abs(np.arctan2(left, ahead)) <= np.deg2rad(self.half_angle)


@TRANSFORMS.register_module()
class LimitedFieldOfView(SensorFailure):
    """LiDAR that sees only a sector around the forward direction.

    | severity | azimuths left |
    |----------|---------------|
    | 1        | ±90°          |
    | 2        | ±60°          |

    As in MoME (Park et al., 2025) and in the benchmark of Yu et al. (2023).

    Args:
        severity: 1 or 2.
        seed: not used.
        forward: forward direction in the LiDAR frame, degrees counter-clockwise from +x; 90 in
            nuScenes, 0 in most other datasets.
    """

    SEVERITIES = (90.0, 60.0)

    def __init__(self, *, severity: int = 1, seed: int = 0, forward: float = 90.0) -> None:
        super().__init__(severity=severity, seed=seed)
        self.forward = forward

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnLimitedFieldOfView:
        """Returns the same sector for every sample."""
        return DrawnLimitedFieldOfView(self.level, self.forward)


@dataclass(frozen=True)
class DrawnObjectFailure(DrawnFailure):
    """Cloud without the points of some objects."""

    boxes: np.ndarray
    """(N, 7) float32: bottom centre, length, width and height in metres, yaw in radians; LiDAR
    frame of the keyframe"""
    velocity: np.ndarray
    """(N, 2) float32: metres per second along x and y, 0 where unknown"""

    def damage_points(self, points, to_keyframe, age):
        """Removes the points in the boxes, which are moved back by the age of the cloud."""
        places = points[:, :3] @ to_keyframe[:3, :3].T + to_keyframe[:3, 3]
        boxes = self.boxes.copy()
        boxes[:, :2] -= self.velocity * age
        return points[~_in_any_box(places, boxes)]

    def lidar_health(self, xy):
        """Returns 0 on the ground below the boxes, 1 elsewhere."""
        places = np.concatenate([xy, np.zeros_like(xy[..., :1])], axis=-1).reshape(-1, 3)
        columns = self.boxes.copy()
        columns[:, 2], columns[:, 5] = -1.0, 2.0  # around the height of the places
        return (~_in_any_box(places, columns)).reshape(xy.shape[:-1]).astype(np.float32)


@TRANSFORMS.register_module()
class ObjectFailure(SensorFailure):
    """Loss of all points in annotated boxes, in some of the frames.

    | severity | frames |
    |----------|--------|
    | 1        | 50 %   |

    As in MoME (Park et al., 2025). The boxes are those of the keyframe; for a sweep each is moved
    back along its velocity by the age of the sweep, so that a moving object vanishes from its own
    place. Objects that the dataset filters out, such as those without a LiDAR point, stay; objects
    of classes that are annotated but not detected vanish too.

    Args:
        severity: 1.
        seed: seed of the choice of frames.
    """

    SEVERITIES = (0.5,)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnObjectFailure | None:
        """Returns the annotated boxes of the sample, or None in a frame that is spared.

        Raises:
            KeyError: the sample has no annotations.
        """
        if rng.random() >= self.level:
            return None
        return DrawnObjectFailure(*_annotated(results))


def _annotated(results: dict) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes (N, 7) and velocities (N, 2) of a sample, in training or at test time."""
    info = results.get('ann_info') or results.get('eval_ann_info')
    if info is None:
        raise KeyError(
            f'ObjectFailure: sample {results["token"]} has neither ann_info nor eval_ann_info, '
            'which hold the boxes; the dataset gives the latter with load_eval_anns=True'
        )
    boxes = info['gt_bboxes_3d'].tensor.numpy().astype(np.float32)
    velocity = boxes[:, 7:9] if boxes.shape[1] >= 9 else np.zeros((len(boxes), 2), np.float32)
    # nuScenes gives NaN where a velocity is unknown; such an object is taken to stand still.
    return boxes[:, :7].copy(), np.nan_to_num(velocity, nan=0.0)


def _in_any_box(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: whether each of the points (N, 3) is in one of the boxes (M, 7)."""
    if not len(points) or not len(boxes):
        return np.zeros(len(points), dtype=bool)
    batch = (torch.from_numpy(np.ascontiguousarray(a, np.float32))[None] for a in (points, boxes))
    return points_in_boxes_cpu(*batch)[0].any(dim=1).numpy()


@dataclass(frozen=True)
class DrawnPointsDrop(DrawnFailure):
    """Cloud that has lost each point with the same probability."""

    share: float
    noise: int

    def damage_points(self, points, to_keyframe, age):
        """Removes the share of points, by a draw of its own for every cloud."""
        rng = random_stream(self.noise, zlib.crc32(points.tobytes()))
        return points[rng.random(len(points)) >= self.share]

    def lidar_health(self, xy):
        """Returns the share of points that are left, everywhere."""
        return np.full(xy.shape[:-1], 1 - self.share, dtype=np.float32)


@TRANSFORMS.register_module()
class PointsDrop(SensorFailure):
    """Loss of points at random.

    | severity | points lost |
    |----------|-------------|
    | 1        | 70 %        |
    | 2        | 80 %        |
    | 3        | 90 %        |

    As MultiCorrupt's points reducing (Beemelmanns et al., 2024), but drawn for each point and for
    each sweep independently.

    Args:
        severity: from 1 to 3.
        seed: seed of the choice of points.
    """

    SEVERITIES = (0.7, 0.8, 0.9)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnPointsDrop:
        """Returns the share and the seed from which the points of each cloud are chosen."""
        return DrawnPointsDrop(self.level, int(rng.integers(2**32)))
