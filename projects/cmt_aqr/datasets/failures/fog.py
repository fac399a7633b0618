"""Fog, which attenuates both sensors with distance."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from mmdet3d.registry import TRANSFORMS

from .base import DrawnFailure, SensorFailure, random_stream

# Brightness of the fog itself, of 255.
_GREY = 190
# Largest distance to the ground, and the distance of everything above the horizon, metres; about
# the farthest distance at which nuScenes scores boxes.
_FAR = 50.0
# Height of a LiDAR above the ground if the infos do not tell it, metres.
_LIDAR_HEIGHT = 1.8
# Pixels along each side of the cells for which the fog of an image is computed.
_CELL = 8


@TRANSFORMS.register_module()
class Fog(SensorFailure):
    """Fog with an extinction coefficient α, in every sample and for both sensors.

    | severity | α in 1/m | half the contrast is gone at |
    |----------|----------|------------------------------|
    | 1        | 0.02     | 35 m                         |
    | 2        | 0.03     | 23 m                         |
    | 3        | 0.06     | 12 m                         |

    The coefficients are those of MultiCorrupt (Beemelmanns et al., 2024); the model is simpler:

    - LiDAR: a return at R metres is attenuated by exp(-2 α R) and lost with the probability
      1 - exp(-2 α R). The published fog (Hahner et al., 2021) loses no return: where the echo of
      the fog itself is stronger, it replaces the return, nearer to the sensor.
    - Cameras: an object d metres away keeps exp(-α d) of its light, the rest is grey (Koschmieder's
      law). There is no depth map, so d is the distance to a flat ground, at most 50 m, and 50 m
      above the horizon; objects on the ground get the fog of the ground behind them. The published
      fog is an image of noise with a coefficient of its own. Where the infos have neither
      ``cam2ego`` nor ``lidar2ego``, z of the LiDAR frame points up and the LiDAR is 1.8 m high.

    Args:
        severity: from 1 to 3.
        seed: seed of the choice of lost returns.
    """

    SEVERITIES: ClassVar = (0.02, 0.03, 0.06)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnFog:
        """Returns the same fog for every sample.

        Raises:
            KeyError: a camera has no ``cam2img``, or neither ``cam2ego`` nor ``lidar2cam``.
        """
        cameras = results.get('images', {})
        poses = [_cam2ego(camera, results) for camera in cameras.values()]
        poses = np.array(poses).reshape(-1, 4, 4)
        intrinsics = np.array([np.array(c['cam2img'])[:3, :3] for c in cameras.values()])
        return DrawnFog(
            alpha=self.level,
            noise=int(rng.integers(2**32)),
            cameras=tuple(cameras),
            intrinsics=intrinsics.reshape(-1, 3, 3),
            upwards=poses[:, 2, :3],
            heights=poses[:, 2, 3],
        )


@dataclass(frozen=True)
class DrawnFog(DrawnFailure):
    """Fog, with the calibration of V cameras."""

    alpha: float
    noise: int
    cameras: tuple[str, ...]
    intrinsics: np.ndarray
    """(V, 3, 3): from the camera's frame to pixels of the image as read"""
    upwards: np.ndarray
    """(V, 3): upward direction in the camera's frame"""
    heights: np.ndarray
    """(V,): height of the camera above the ground, metres"""

    def damage_points(self, points: np.ndarray, to_keyframe: np.ndarray, age: float) -> np.ndarray:
        """Attenuates the intensities and removes returns, increasingly with distance."""
        left = self._echo_left(points[:, :3])
        rng = random_stream(self.noise, zlib.crc32(points.tobytes()))
        kept = rng.random(len(points)) < left
        points = points[kept]
        points[:, 3] *= left[kept]
        return points

    def damage_image(self, image: np.ndarray, camera: str) -> np.ndarray:
        """Blends grey into the image, increasingly with distance."""
        height, width = image.shape[:2]
        shape = (-(-height // _CELL), -(-width // _CELL))
        clear = cv2.resize(self._light_left(camera, shape, (height, width)), (width, height))
        return cv2.blendLinear(image, np.full_like(image, _GREY), clear, 1 - clear)

    def lidar_health(self, xy: np.ndarray) -> np.ndarray:
        """Returns the share of returns that are left."""
        return self._echo_left(xy)

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns the share of the light that is left.

        The size of the image is not known here; it is taken as twice the principal point, which is
        off by up to a twentieth of the height in nuScenes.
        """
        column, row = self.intrinsics[self.cameras.index(camera)][:2, 2]
        return self._light_left(camera, shape, (2 * row, 2 * column))

    def _echo_left(self, places: np.ndarray) -> np.ndarray:
        """exp(-2 α R) at places (..., 2 or 3) in metres from the sensor, float32."""
        return np.exp(-2 * self.alpha * np.linalg.norm(places, axis=-1)).astype(np.float32)

    def _light_left(
        self, camera: str, shape: tuple[int, int], image_shape: tuple[float, float]
    ) -> np.ndarray:
        """(h, w) float32: exp(-α d) at the centres of the cells that divide an image."""
        distance = self._ground_distance(camera, shape, image_shape)
        return np.exp(-self.alpha * np.minimum(distance, _FAR)).astype(np.float32)

    def _ground_distance(
        self, camera: str, shape: tuple[int, int], image_shape: tuple[float, float]
    ) -> np.ndarray:
        """Metres to the ground along the ray of each cell; inf above the horizon."""
        index = self.cameras.index(camera)
        v, u = ((np.arange(n) + 0.5) * size / n for n, size in zip(shape, image_shape, strict=True))
        pixels = np.stack([*np.meshgrid(u, v), np.ones(shape)], axis=-1)
        rays = pixels @ np.linalg.inv(self.intrinsics[index]).T
        fall = (
            -rays @ self.upwards[index] / np.linalg.norm(rays, axis=-1)
        )  # per metre along the ray
        distance = np.full(shape, np.inf)
        return np.divide(self.heights[index], fall, out=distance, where=fall > 0)


def _cam2ego(camera: dict, results: dict) -> np.ndarray:
    """(4, 4) from a camera's frame to that of the vehicle, whose origin is on the ground."""
    if 'cam2ego' in camera:
        return np.asarray(camera['cam2ego'], dtype=np.float64)
    lidar2ego = np.eye(4)
    lidar2ego[2, 3] = _LIDAR_HEIGHT
    lidar2ego = np.asarray(results.get('lidar_points', {}).get('lidar2ego', lidar2ego))
    return lidar2ego @ np.linalg.inv(camera['lidar2cam'])
