"""Rotating 32-beam LiDAR like that of nuScenes.

A whole turn is recorded at one moment, so there is no rolling-shutter distortion.
"""

from collections.abc import Sequence

import numpy as np

from .actors import Visible
from .raycast import Box, cast
from .rig import LIDAR
from .weather import Weather

BEAMS = 32
# Elevation of ring 0 and of the last ring, degrees.
LOWEST, HIGHEST = -30.67, 10.67
# Mean intensity of the ground, 0 to 255.
GROUND_INTENSITY = 12.0
GROUND = -1
# Intensity of spray, mean number of patches of it, and their width in metres.
SPRAY_INTENSITY, SPRAY_PATCHES, SPRAY_WIDTH = 4.0, 14, 2.0


class Lidar:
    """LiDAR of the rig.

    Args:
        azimuths: number of columns per turn.
        beams: number of rings.
        max_range: range of the farthest returns, metres.
        range_noise: standard deviation along the ray, metres.
    """

    def __init__(
        self,
        *,
        azimuths: int = 480,
        beams: int = BEAMS,
        max_range: float = 60.0,
        range_noise: float = 0.015,
    ):
        self.max_range, self.range_noise = max_range, range_noise
        self.elevation = np.radians(np.linspace(LOWEST, HIGHEST, beams))
        self.step = 2 * np.pi / azimuths
        azimuth = (np.arange(azimuths) + 0.5) * self.step
        level = np.cos(self.elevation)[:, None]
        # Unit rays (beams, azimuths, 3) in the ego frame; azimuth grows from forward to the left.
        self.rays = np.stack(
            np.broadcast_arrays(
                level * np.cos(azimuth), level * np.sin(azimuth), np.sin(self.elevation)[:, None]
            ),
            axis=-1,
        ).astype(np.float32)
        self.origin = np.array(LIDAR.position)
        down = np.minimum(self.rays[..., 2], -1e-6)
        self.ground = (-self.origin[2] / down).astype(np.float32)
        # A quarter turn from ego axes to LiDAR axes, without rounding errors.
        self.to_lidar = LIDAR.rotation.inverse.rotation_matrix.round().astype(np.float32)

    def sweep(
        self, objects: Sequence[Visible], weather: Weather, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[int, int]]:
        """Records one turn.

        Args:
            objects: actors in range, with boxes in the ego frame.
            weather: weather of the scene.
            rng: generator of the noise.

        Returns:
            Points (N, 5) float32: x, y, z in the LiDAR frame in metres, intensity 0 to 255, ring 0
            to 31 (0 lowest), column by column; and the number of points on each actor by index.
        """
        distance, owner = self.ground.copy(), np.full(self.ground.shape, GROUND)
        reflectivity = np.full(self.ground.shape, GROUND_INTENSITY)
        for item in objects:
            window = self._window(item.box)
            rays = self.rays[window]
            depth = np.min(
                [cast(self.origin, rays, b).depth for b in item.actor.solid_boxes(item.box)], 0
            )
            rows, columns = np.nonzero(depth < distance[window])
            place = window[0][rows, 0], window[1][0, columns]
            distance[place] = depth[rows, columns]
            owner[place], reflectivity[place] = item.index, item.actor.reflectivity
        noisy = distance + self.range_noise * rng.standard_normal(distance.shape)
        intensity = np.clip(reflectivity * rng.normal(1.0, 0.15, distance.shape), 0, 255)
        loss = weather.lidar_loss + weather.lidar_fade * np.minimum(distance / self.max_range, 1)
        kept = (distance < self.max_range) & (rng.random(distance.shape) >= loss)
        if weather.spray:
            ghosts = self._spray(noisy, weather.spray, rng)
            owner[ghosts], intensity[ghosts], kept[ghosts] = GROUND, SPRAY_INTENSITY, True
        points = self._points(noisy, intensity, kept)
        indices, counts = np.unique(owner[kept & (owner != GROUND)], return_counts=True)
        return points, dict(zip(indices.tolist(), counts.tolist(), strict=True))

    def _spray(
        self, distance: np.ndarray, share: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shortens rays, in place, that return from patches of spray; returns their indices.

        Spray hangs over the road near the ego vehicle, in patches of some metres, below a metre.
        """
        count = rng.poisson(SPRAY_PATCHES)
        bearing, middle = rng.uniform(-np.pi, np.pi, count), rng.uniform(3.0, 14.0, count)
        patches = np.zeros(distance.shape, bool)
        for angle, reach in zip(bearing, middle, strict=True):
            width = max(int(SPRAY_WIDTH / reach / self.step), 1)
            columns = (int(angle / self.step) + np.arange(width)) % distance.shape[1]
            depth = reach + rng.normal(0, 0.7, (len(distance), width))
            height = self.origin[2] + depth * np.sin(self.elevation)[:, None]
            hit = (height > 0) & (height < 1.0) & (rng.random(depth.shape) < share)
            hit &= (depth > 2.0) & (depth < distance[:, columns])
            rows, places = np.nonzero(hit)
            distance[rows, columns[places]] = depth[rows, places]
            patches[rows, columns[places]] = True
        return np.nonzero(patches)

    def _points(self, distance: np.ndarray, intensity: np.ndarray, kept: np.ndarray) -> np.ndarray:
        columns, rings = np.nonzero(kept.T)
        place = rings, columns
        ego = self.rays[place] * distance[place][:, None].astype(np.float32)
        lidar = np.stack([(ego * axis).sum(1) for axis in self.to_lidar], axis=1)
        extra = np.stack([intensity[place].round(), rings], axis=1)
        return np.concatenate([lidar, extra], axis=1).astype(np.float32)

    def _window(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows (R, 1) and columns (1, A) of the rays that can hit a box."""
        gap = box.corners() - self.origin
        middle = np.arctan2(*(box.centre - self.origin)[1::-1])
        offsets = (np.arctan2(gap[:, 1], gap[:, 0]) - middle + np.pi) % (2 * np.pi) - np.pi
        low = np.floor((middle + offsets.min()) / self.step - 0.5)
        high = np.ceil((middle + offsets.max()) / self.step - 0.5)
        columns = np.arange(low, high + 1).astype(int) % self.rays.shape[1]
        nearest, farthest = _level_distances(self.origin, box)
        bottom, top = gap[:, 2].min(), gap[:, 2].max()
        lowest = np.arctan2(bottom, nearest if bottom < 0 else farthest)
        highest = np.arctan2(top, farthest if top < 0 else nearest)
        rows = np.flatnonzero((self.elevation >= lowest) & (self.elevation <= highest))
        return rows[:, None], columns[None]


def _level_distances(origin: np.ndarray, box: Box) -> tuple[float, float]:
    """Returns the smallest and largest distance on the ground from a box to ``origin``."""
    x, y = origin[:2] - box.centre[:2]
    cos, sin = np.cos(box.yaw), np.sin(box.yaw)
    local = np.abs([cos * x + sin * y, cos * y - sin * x])
    half = box.size[:2] / 2
    return float(np.hypot(*np.maximum(local - half, 0))), float(np.hypot(*(local + half)))
