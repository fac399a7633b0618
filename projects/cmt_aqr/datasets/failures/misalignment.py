"""Wrong calibration between the LiDAR and the cameras, or of a single camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from mmdet3d.registry import TRANSFORMS
from scipy.spatial.transform import Rotation

from .base import DrawnFailure, SensorFailure

# Matrices of a camera in an info file that start from the LiDAR's frame.
_FROM_LIDAR = ('lidar2cam', 'lidar2img')


@TRANSFORMS.register_module()
class Misalignment(SensorFailure):
    """Wrong calibration between the LiDAR and all cameras, in some samples.

    The calibration projects each point as if it were rotated about the axes x, y and z of the LiDAR
    frame, in this order, and then shifted along x.

    | severity | samples | angle about each axis | shift along x |
    |----------|---------|-----------------------|---------------|
    | 1        | 20 %    | 1°                    | 2 m           |
    | 2        | 40 %    | 2°                    | 2 m           |
    | 3        | 60 %    | 3°                    | 2 m           |

    The numbers are those of MultiCorrupt's spatial misalignment (Beemelmanns et al., 2024), which
    moves the points and leaves the calibration, so that boxes found with the LiDAR are as wrong as
    the points. Here points, images and boxes stay true: LiDAR and cameras disagree in the same way,
    but a detector that relies on the LiDAR alone loses nothing.

    Args:
        severity: from 1 to 3.
        seed: seed of the choice of samples.
    """

    SEVERITIES: ClassVar = ((0.2, 1.0), (0.4, 2.0), (0.6, 3.0))
    """Share of samples, and angle in degrees."""

    NEEDS: ClassVar = ('images',)

    SHIFT: ClassVar = 2.0
    """Metres."""

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnMisalignment | None:
        """Returns the same error for each sample that is not spared."""
        probability, degrees = self.level
        if rng.random() >= probability:
            return None
        return DrawnMisalignment(degrees, self.SHIFT)


@dataclass(frozen=True)
class DrawnMisalignment(DrawnFailure):
    """Wrong poses of all cameras."""

    degrees: float
    shift: float

    @property
    def error(self) -> np.ndarray:
        """(4, 4): from the true place of a point to the place that the calibration assumes."""
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler('xyz', [self.degrees] * 3, degrees=True).as_matrix()
        matrix[0, 3] = self.shift
        return matrix

    def alter(self, results: dict) -> None:
        """Changes ``lidar2cam`` and, if it exists, ``lidar2img`` of each camera."""
        results['images'] = {name: self._moved(cam) for name, cam in results['images'].items()}

    def _moved(self, camera: dict) -> dict:
        wrong = {
            key: (np.asarray(camera[key], dtype=np.float64) @ self.error).tolist()
            for key in _FROM_LIDAR
            if key in camera
        }
        return {**camera, **wrong}

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns 0: nothing that a camera sees is where its calibration says."""
        return np.zeros(shape, dtype=np.float32)


@TRANSFORMS.register_module()
class KnockedCamera(SensorFailure):
    """One camera, another in every sample, turned out of the pose that its calibration says.

    | severity | angle |
    |----------|-------|
    | 1        | 3°    |
    | 2        | 6°    |
    | 3        | 10°   |

    A protocol of this project. The axis of the turn is uniform over all directions. As with
    `Misalignment` the calibration changes and the image stays: both differ in the same way.

    Args:
        severity: from 1 to 3.
        seed: seed of the choice of the camera and of the axis.
    """

    SEVERITIES: ClassVar = (3.0, 6.0, 10.0)
    NEEDS: ClassVar = ('images',)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnKnockedCamera | None:
        """Returns the turn of one of the cameras; None for a sample without any."""
        names = sorted(results['images'])
        if not names:
            return None
        name, axis = names[rng.integers(len(names))], rng.standard_normal(3)
        turn = np.deg2rad(self.level) * axis / np.linalg.norm(axis)
        return DrawnKnockedCamera(name, tuple(turn.tolist()))


@dataclass(frozen=True)
class DrawnKnockedCamera(DrawnFailure):
    """Wrong orientation of one camera."""

    camera: str
    turn: tuple[float, float, float]
    """rotation vector in the camera's frame, radians"""

    def alter(self, results: dict) -> None:
        """Changes ``lidar2cam`` and, if it exists, ``lidar2img`` of the camera."""
        camera = dict(results['images'][self.camera])
        error = np.eye(4)
        error[:3, :3] = Rotation.from_rotvec(self.turn).as_matrix()
        camera['lidar2cam'] = (error @ np.asarray(camera['lidar2cam'])).tolist()
        if 'lidar2img' in camera:
            image = np.eye(4)
            image[:3, :3] = np.asarray(camera['cam2img'])[:3, :3]
            camera['lidar2img'] = (image @ camera['lidar2cam']).tolist()
        results['images'] = {**results['images'], self.camera: camera}

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns 0 for the camera: nothing that it sees is where its calibration says."""
        return np.full(shape, camera != self.camera, dtype=np.float32)
