"""Calibration that has come loose: what is said of the cameras is not where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from mmdet3d.registry import TRANSFORMS
from scipy.spatial.transform import Rotation

from .base import DrawnFailure, SensorFailure

# Of a camera in an info file, what a change of the LiDAR's frame changes.
_FROM_LIDAR = ('lidar2cam', 'lidar2img')


@TRANSFORMS.register_module()
class Misalignment(SensorFailure):
    """In some samples the calibration between the LiDAR and all cameras is wrong.

    It places a point where one would be seen that is turned about each axis of the LiDAR frame, x
    first, and shifted along x.

    | severity | samples | angle about each axis | shift along x |
    |----------|---------|-----------------------|---------------|
    | 1        | 20 %    | 1°                    | 2 m           |
    | 2        | 40 %    | 2°                    | 2 m           |
    | 3        | 60 %    | 3°                    | 2 m           |

    The numbers are those of MultiCorrupt's spatial misalignment (Beemelmanns et al., 2024). That
    one moves the points and leaves the calibration, so that boxes found with the LiDAR are as wrong
    as the points; here points, images and boxes stay true. LiDAR and cameras disagree in the same
    way, but a detector that relies on the LiDAR alone loses nothing.

    Args:
        severity: from 1 to 3.
        seed: of the choice of samples.
    """

    SEVERITIES: ClassVar = ((0.2, 1.0), (0.4, 2.0), (0.6, 3.0))
    """Share of samples, and degrees."""

    SHIFT: ClassVar = 2.0
    """Metres."""

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnMisalignment | None:
        """The same error in each sample that is not spared."""
        probability, degrees = self.level
        if rng.random() >= probability:
            return None
        return DrawnMisalignment(degrees, self.SHIFT)


@dataclass(frozen=True)
class DrawnMisalignment(DrawnFailure):
    """All cameras are said to be elsewhere."""

    degrees: float
    shift: float

    @property
    def error(self) -> np.ndarray:
        """(4, 4): from the LiDAR frame to where the calibration takes a point to be."""
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler('xyz', [self.degrees] * 3, degrees=True).as_matrix()
        matrix[0, 3] = self.shift
        return matrix

    def alter(self, results: dict) -> None:
        """Changes ``lidar2cam``, and ``lidar2img`` where there is one, of each camera."""
        results['images'] = {name: self._moved(cam) for name, cam in results['images'].items()}

    def _moved(self, camera: dict) -> dict:
        wrong = {
            key: (np.asarray(camera[key], dtype=np.float64) @ self.error).tolist()
            for key in _FROM_LIDAR
            if key in camera
        }
        return {**camera, **wrong}

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """0: nothing that a camera sees is where its calibration says."""
        return np.zeros(shape, dtype=np.float32)
