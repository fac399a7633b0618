"""Returns from drops in the air, where nothing solid is."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from mmdet3d.registry import TRANSFORMS

from .base import DrawnFailure, SensorFailure, random_stream

# Metres from the sensor within which drops are dense enough to be seen, as with rain and spray.
_NEAREST, _FARTHEST = 2.0, 20.0
# A drop reflects this share of what a solid surface does.
_DIM = 0.1


@TRANSFORMS.register_module()
class GhostPoints(SensorFailure):
    """Rain or spray: some beams return from a drop in the air in front of what they would hit.

    | severity | returns from drops |
    |----------|--------------------|
    | 1        | 5 %                |
    | 2        | 10 %               |
    | 3        | 20 %               |

    A protocol of this project. Such a return keeps its direction and its ring; its distance is
    uniform from 2 m to 20 m, or to the true return if that is nearer, and its intensity is a tenth.
    Drops are independent of each other: the clouds of spray behind vehicles are not modelled.

    Args:
        severity: from 1 to 3.
        seed: seed of the choice of returns.
    """

    SEVERITIES: ClassVar = (0.05, 0.1, 0.2)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnGhostPoints:
        """Returns the share and the seed from which the drops of each cloud are drawn."""
        return DrawnGhostPoints(self.level, int(rng.integers(2**32)))


@dataclass(frozen=True)
class DrawnGhostPoints(DrawnFailure):
    """Cloud in which a share of the returns come from drops."""

    share: float
    noise: int

    def damage_points(self, points: np.ndarray, to_keyframe: np.ndarray, age: float) -> np.ndarray:
        """Moves the returns of drops towards the sensor, by a draw of its own for every cloud."""
        rng = random_stream(self.noise, zlib.crc32(points.tobytes()))
        chosen = rng.random(len(points)) < self.share
        place = rng.random(len(points))
        distance = np.linalg.norm(points[:, :3], axis=1)
        chosen &= distance > _NEAREST
        nearer = _NEAREST + place * (np.minimum(distance, _FARTHEST) - _NEAREST)
        ghosts = points.copy()
        ghosts[chosen, :3] *= (nearer[chosen] / distance[chosen])[:, None]
        ghosts[chosen, 3] *= _DIM
        return ghosts

    def lidar_health(self, xy: np.ndarray) -> np.ndarray:
        """Returns the share of true returns, everywhere."""
        return np.full(xy.shape[:-1], 1 - self.share, dtype=np.float32)
