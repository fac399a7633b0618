"""Pinhole cameras that render shaded, textured objects on a textured ground under a sky.

Rays are cast only inside the projected rectangle of an object, into a depth buffer. H and W are
height and width of an image in pixels; everything else is in metres, in the ego frame (x forward, y
left, z up, origin on the ground).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

from .actors import Visible
from .paint import face_light
from .raycast import EDGES, Box, cast, rotate_z
from .rig import CAMERAS, CameraMount
from .street import Scene

# Depth of the near plane at which boxes are clipped, metres.
NEAR = 0.05
# Ground texture: cells per side of its period, metres per cell, cells per soft patch, contrast.
TEXTURE_CELLS = 256
TEXTURE_CELL = 0.25
PATCH_CELLS = 16
TEXTURE_CONTRAST = 0.15
# At night: brightness of the ego's headlamps, the distance at which it falls to 1/e in metres, and
# half the width of the beam as a share of the distance.
HEADLIGHT, HEADLIGHT_REACH, HEADLIGHT_SPREAD = 0.7, 16.0, 0.45
# Brightness of lamps, whatever the light.
GLOW = 0.9
# Owner of a pixel of sky or ground.
NOBODY = -1


@dataclass(frozen=True)
class Window:
    """Rectangle of pixels: rows ``top`` to ``bottom - 1``, columns ``left`` to ``right - 1``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Returns the index of the pixels in an (H, W, ...) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class FrameBuffer:
    """Buffers of one image, which rendering changes in place.

    Attributes:
        image: (H, W, 3) float32 RGB, 0 to 1.
        depth: (H, W) float32 metres along the optical axis to the nearest surface; inf in the sky.
        owner: (H, W) int32 index of the visible object, -1 for none.
        face: (H, W, 2) int8 part of the visible object, and axis of its visible face.
    """

    image: np.ndarray
    depth: np.ndarray
    owner: np.ndarray
    face: np.ndarray

    def __getitem__(self, window: Window) -> 'FrameBuffer':
        """Returns a view of the buffers inside a window."""
        return FrameBuffer(*(getattr(self, f.name)[window.slices] for f in fields(self)))


class PixelCounts(dict):
    """Number of pixels by object index: [covered without occlusion, visible]."""

    def add(self, index: int, covered: int, seen: int) -> None:
        """Adds pixels of one object in one image."""
        entry = self.setdefault(index, [0, 0])
        entry[0] += covered
        entry[1] += seen

    def share(self, index: int) -> float:
        """Returns the visible share of an object's pixels over all images, 0 if it is in none."""
        covered, seen = self.get(index, (0, 0))
        return seen / covered if covered else 0.0


class Camera:
    """Camera of the rig.

    Args:
        mount: pose and focal length.
        width, height: image size, pixels.

    Attributes:
        intrinsic: (3, 3) pinhole matrix in pixels.
        rays: (H, W, 3) float32 ray through each pixel's centre to a depth of one metre, ego frame.
        ground_depth: (H, W) float32 metres along the optical axis to the ground; inf in the sky.
    """

    def __init__(self, mount: CameraMount, *, width: int, height: int):
        self.mount, self.width, self.height = mount, width, height
        self.intrinsic = mount.intrinsic(width, height)
        self.origin = np.array(mount.position)
        self.axes = mount.rotation.rotation_matrix.T
        focal = self.intrinsic[0, 0]
        right = (np.arange(width) + 0.5 - self.intrinsic[0, 2]) / focal
        down = (np.arange(height) + 0.5 - self.intrinsic[1, 2]) / focal
        # To a depth of one metre, so that ray parameters are depths.
        self.rays = (
            right[None, :, None] * self.axes[0] + down[:, None, None] * self.axes[1] + self.axes[2]
        ).astype(np.float32)
        self.ground_depth = np.where(
            self.rays[..., 2] < -1e-6,
            -self.origin[2] / np.minimum(self.rays[..., 2], -1e-6),
            np.inf,
        ).astype(np.float32)

    def window(self, box: Box) -> Window | None:
        """Returns the smallest window that contains the part of a box before the camera, if any."""
        if self._misses(box):
            return None
        corners = np.stack([((box.corners() - self.origin) * a).sum(1) for a in self.axes], axis=1)
        ends = corners[EDGES]
        depth = ends[..., 2]
        crossing = (depth.min(1) < NEAR) & (depth.max(1) > NEAR)
        share = (NEAR - depth[crossing, 0]) / (depth[crossing, 1] - depth[crossing, 0])
        cut = ends[crossing, 0] + share[:, None] * (ends[crossing, 1] - ends[crossing, 0])
        points = np.concatenate([corners[corners[:, 2] >= NEAR], cut])
        if not len(points):
            return None
        pixels = points[:, :2] / np.maximum(points[:, 2:], NEAR) * self.intrinsic[0, 0]
        low = np.floor(pixels.min(0) + self.intrinsic[:2, 2]).clip(0, (self.width, self.height))
        high = np.ceil(pixels.max(0) + self.intrinsic[:2, 2]).clip(0, (self.width, self.height))
        if (low >= high).any():
            return None
        return Window(int(low[1]), int(high[1]), int(low[0]), int(high[0]))

    def _misses(self, box: Box) -> bool:
        """Whether the ball around a box lies behind the camera or beside its field of view."""
        x, _, z = self.axes @ (box.centre - self.origin)
        radius = np.sqrt(np.square(box.size).sum()) / 2
        slope = self.width / 2 / self.intrinsic[0, 0]
        return z < NEAR - radius or abs(x) - z * slope > radius * np.sqrt(1 + slope**2)

    def render(
        self, view: 'View', objects: Sequence[Visible], counts: PixelCounts
    ) -> tuple[np.ndarray, np.ndarray]:
        """Renders one image.

        Args:
            view: background of the scene at this moment.
            objects: objects within the draw distance, with boxes in the ego frame.
            counts: pixels by object, updated in place.

        Returns:
            The image (H, W, 3) RGB in 0 to 1, float32, without sensor noise, and the index (H, W)
            of the visible object (-1 for none).
        """
        buffer = FrameBuffer(
            image=view.background(self),
            depth=self.ground_depth.copy(),
            owner=np.full(self.ground_depth.shape, NOBODY, np.int32),
            face=np.zeros((*self.ground_depth.shape, 2), np.int8),
        )
        windows = [(item, self.window(item.box)) for item in objects]
        drawn = [(item, window) for item, window in windows if window is not None]
        covered = [self._cast(item, window, buffer[window]) for item, window in drawn]
        for (item, window), pixels in zip(drawn, covered, strict=True):
            seen = self._shade(item, window, buffer[window], view)
            counts.add(item.index, pixels, seen)
        return buffer.image, buffer.owner

    def _cast(self, item: Visible, window: Window, pixels: FrameBuffer) -> int:
        """Casts an object into its window; returns the number of pixels without occlusion."""
        rays = self.rays[window.slices]
        hits = [cast(self.origin, rays, box) for box in item.actor.solid_boxes(item.box)]
        depths = np.stack([h.depth for h in hits])
        part = depths.argmin(0)
        nearest = depths.min(0)
        axis = np.choose(part, [h.axis for h in hits])
        front = nearest < pixels.depth
        pixels.depth[front] = nearest[front]
        pixels.owner[front] = item.index
        pixels.face[front] = np.stack([part[front], axis[front]], axis=-1)
        return int(np.isfinite(nearest).sum())

    def _shade(self, item: Visible, window: Window, pixels: FrameBuffer, view: 'View') -> int:
        """Colours the visible pixels of an object in its window; returns their number."""
        mine = pixels.owner == item.index
        rays = self.rays[window.slices][mine]
        part, axis = pixels.face[mine].astype(int).T
        ground = item.box.centre - [0, 0, item.box.size[2] / 2]
        local_rays = rotate_z(rays, -item.box.yaw)
        start = rotate_z(self.origin - ground, -item.box.yaw)
        local = start + pixels.depth[mine][:, None] * local_rays
        side = -np.sign(local_rays[np.arange(len(axis)), axis])
        light = face_light(axis, side, item.box.yaw, view.light) * view.scene.weather.exposure
        light += view.headlight(self.origin[:2] + pixels.depth[mine][:, None] * rays[:, :2])
        colours, glow = item.actor.paint(part, axis, side, local)
        light[glow] = np.maximum(light[glow], GLOW)
        pixels.image[mine] = colours * light[:, None]
        return int(mine.sum())


class View:
    """Background of a scene as seen from the ego vehicle at one moment.

    Args:
        scene: the scene.
        time: seconds since the first keyframe.
        texture: (C, C) ground texture from :func:`ground_texture`.

    Attributes:
        ego: (3,) global x and y in metres and yaw in radians of the ego vehicle.
        light: (3,) unit vector towards the sun, in the ego frame.
    """

    def __init__(self, scene: Scene, time: float, texture: np.ndarray):
        self.scene, self.texture = scene, texture
        self.ego = scene.path.poses(np.array([time]))[0]
        self.light = rotate_z(scene.weather.light, -self.ego[2])

    def background(self, camera: Camera) -> np.ndarray:
        """(H, W, 3) float32 RGB of sky and ground, 0 to 1."""
        weather = self.scene.weather
        image = np.empty((camera.height, camera.width, 3), np.float32)
        sky = ~np.isfinite(camera.ground_depth)
        rays = camera.rays[sky]
        height = np.minimum(3 * rays[:, 2:] / np.hypot(rays[:, :1], rays[:, 1:2]), 1)
        image[sky] = (weather.haze + height * (weather.sky - weather.haze)) * weather.exposure
        depth = camera.ground_depth[~sky][:, None]
        place = camera.origin[:2].astype(np.float32) + depth * camera.rays[~sky][:, :2]
        haze = np.minimum(depth / weather.haze_distance, 1) ** 2
        ground = self._ground(place) * (weather.exposure + self.headlight(place))[:, None]
        image[~sky] = ground + haze * (weather.haze * weather.exposure - ground)
        return image

    def headlight(self, place: np.ndarray) -> np.ndarray:
        """(N,) brightness of the ego's headlamps at places (N, 2) in the ego frame; 0 by day."""
        if not self.scene.weather.night:
            return np.zeros(len(place), np.float32)
        x, y = place[:, 0], np.abs(place[:, 1])
        beam = np.clip(1.5 - y / (np.maximum(x, 0.1) * HEADLIGHT_SPREAD), 0, 1) * (x > 0)
        return HEADLIGHT * beam * np.exp(-np.maximum(x, 0) / HEADLIGHT_REACH)

    def _ground(self, place: np.ndarray) -> np.ndarray:
        """(N, 3) colours of the ground, fixed in the global frame, at (N, 2) in the ego frame."""
        cos, sin = np.float32(np.cos(self.ego[2])), np.float32(np.sin(self.ego[2]))
        x = self.ego[0] + cos * place[:, 0] - sin * place[:, 1]
        y = self.ego[1] + sin * place[:, 0] + cos * place[:, 1]
        points = np.clip(np.stack([x, y], axis=-1), -1e6, 1e6)
        column, row = (points / TEXTURE_CELL).astype(np.int32).T % len(self.texture)
        return self.scene.ground(points) * self.texture[row, column][:, None]


def ground_texture(rng: np.random.Generator) -> np.ndarray:
    """(C, C) brightness factors around 1, grain on soft patches; tileable."""
    fine = rng.normal(0, TEXTURE_CONTRAST / 3, (TEXTURE_CELLS, TEXTURE_CELLS))
    patches = rng.normal(0, TEXTURE_CONTRAST, (TEXTURE_CELLS // PATCH_CELLS,) * 2)
    coarse = np.kron(patches, np.ones((PATCH_CELLS, PATCH_CELLS)))
    padded = np.pad(coarse, PATCH_CELLS, mode='wrap')
    soft = cv2.blur(padded, (PATCH_CELLS, PATCH_CELLS))[
        PATCH_CELLS:-PATCH_CELLS, PATCH_CELLS:-PATCH_CELLS
    ]
    return (1 + fine + soft).astype(np.float32)


def develop(image: np.ndarray, noise_level: float, rng: np.random.Generator) -> np.ndarray:
    """Adds sensor noise to an image (H, W, 3) in 0 to 1 and quantises it to uint8."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return ((image + noise_level * noise).clip(0, 1) * 255).round().astype(np.uint8)


def make_cameras(width: int, height: int) -> list[Camera]:
    """Returns the cameras of the rig at an image size in pixels."""
    return [Camera(mount, width=width, height=height) for mount in CAMERAS]
