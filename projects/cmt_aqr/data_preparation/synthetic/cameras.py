"""Pinhole cameras that render shaded, textured objects on a textured ground under a sky.

Rays are cast only inside the projected rectangle of an object, into a depth buffer. H and W are
height and width of an image in pixels; everything else is in metres, in the ego frame (x forward, y
left, z up, origin on the ground).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

from .paint import face_light, surface_colours
from .raycast import EDGES, Box, cast, rotate_z
from .rig import CAMERAS, CameraMount
from .world import Scene, Visible

# Depth of the near plane at which boxes are clipped, metres.
NEAR = 0.05
# Standard deviation of the sensor noise, of a full scale of 1.
NOISE = 0.018
# Ground texture: cells per side of its period, metres per cell, cells per soft patch, contrast.
TEXTURE_CELLS = 256
TEXTURE_CELL = 0.25
PATCH_CELLS = 16
TEXTURE_CONTRAST = 0.15
# Distance at which the ground has the colour of the haze, metres.
HAZE_DISTANCE = 80.0
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
        sign = -np.sign(local_rays[np.arange(len(axis)), axis])
        light = face_light(axis, sign, item.box.yaw, view.light)
        colours = surface_colours(item.actor, part, axis, local) * light[:, None]
        pixels.image[mine] = colours * view.scene.exposure
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
        self.light = rotate_z(scene.light, -self.ego[2])

    def background(self, camera: Camera) -> np.ndarray:
        """(H, W, 3) float32 RGB of sky and ground, 0 to 1."""
        scene = self.scene
        image = np.empty((camera.height, camera.width, 3), np.float32)
        sky = ~np.isfinite(camera.ground_depth)
        rays = camera.rays[sky]
        height = np.minimum(3 * rays[:, 2:] / np.hypot(rays[:, :1], rays[:, 1:2]), 1)
        image[sky] = (scene.haze + height * (scene.sky - scene.haze)) * scene.exposure
        depth = camera.ground_depth[~sky][:, None]
        place = camera.origin[:2].astype(np.float32) + depth * camera.rays[~sky][:, :2]
        haze = np.minimum(depth / HAZE_DISTANCE, 1) ** 2
        ground = scene.ground * self._grain(place)[:, None] * scene.exposure
        image[~sky] = ground + haze * (scene.haze * scene.exposure - ground)
        return image

    def _grain(self, place: np.ndarray) -> np.ndarray:
        """(N,) texture, fixed in the global frame, at places (N, 2) in the ego frame."""
        cos, sin = np.cos(self.ego[2]), np.sin(self.ego[2])
        x = self.ego[0] + cos * place[:, 0] - sin * place[:, 1]
        y = self.ego[1] + sin * place[:, 0] + cos * place[:, 1]
        cells = np.stack([x, y]) / TEXTURE_CELL
        column, row = np.clip(cells, -1e6, 1e6).astype(np.int64) % len(self.texture)
        return self.texture[row, column]


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


def develop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds sensor noise to an image (H, W, 3) in 0 to 1 and quantises it to uint8."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return ((image + NOISE * noise).clip(0, 1) * 255).round().astype(np.uint8)


def make_cameras(width: int, height: int) -> list[Camera]:
    """Returns the cameras of the rig at an image size in pixels."""
    return [Camera(mount, width=width, height=height) for mount in CAMERAS]
