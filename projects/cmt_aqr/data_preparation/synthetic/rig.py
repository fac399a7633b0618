"""Sensors on the ego vehicle: nuScenes' layout with exact right angles.

Frames (all right-handed, metres): ego x forward, y left, z up, origin on the ground below the rear
axle; LiDAR x right, y forward, z up; camera x right, y down, z forward. Positions, headings and
focal lengths are rounded from nuScenes' calibration; the rear camera has a shorter focal length.
"""

from dataclasses import dataclass

import numpy as np
from pyquaternion import Quaternion

from ..data_root import LIDAR_CHANNEL


@dataclass(frozen=True)
class Mount:
    """Pose of a sensor in the ego frame.

    Attributes:
        channel: name of the sensor in nuScenes.
        position: (x, y, z) in metres.
        rotation: from sensor coordinates to ego coordinates.
    """

    channel: str
    position: tuple[float, float, float]
    rotation: Quaternion


@dataclass(frozen=True)
class CameraMount(Mount):
    """Pose of a camera, and its focal length in image widths."""

    focal: float

    def intrinsic(self, width: int, height: int) -> np.ndarray:
        """(3, 3) pinhole matrix in pixels; pixel (column i, row j) covers [i, i+1) x [j, j+1)."""
        focal = self.focal * width
        return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


# Columns: x (right), y (down) and z (forward) of a camera that looks forward, in the ego frame.
_LOOK_FORWARD = Quaternion(matrix=np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]))


def _camera(
    channel: str, position: tuple[float, float, float], heading: float, focal: float
) -> CameraMount:
    turn = Quaternion(axis=(0, 0, 1), degrees=heading)
    return CameraMount(channel, position, turn * _LOOK_FORWARD, focal)


LIDAR = Mount(LIDAR_CHANNEL, (0.94, 0.0, 1.84), Quaternion(axis=(0, 0, 1), degrees=-90))

CAMERAS: tuple[CameraMount, ...] = (
    _camera('CAM_FRONT', (1.70, 0.0, 1.51), 0.0, 0.79),
    _camera('CAM_FRONT_RIGHT', (1.55, -0.49, 1.51), -56.0, 0.79),
    _camera('CAM_FRONT_LEFT', (1.55, 0.49, 1.51), 56.0, 0.79),
    _camera('CAM_BACK', (0.03, 0.0, 1.57), 180.0, 0.506),
    _camera('CAM_BACK_LEFT', (1.03, 0.48, 1.57), 110.0, 0.79),
    _camera('CAM_BACK_RIGHT', (1.03, -0.48, 1.57), -110.0, 0.79),
)
