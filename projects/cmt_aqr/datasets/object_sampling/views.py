"""Where boxes appear in the image of a camera, and which of them is in front.

Shapes: N boxes, P points, (H, W) size of the image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NO_BOX = -1


class View(NamedTuple):
    """A camera, and the smallest upright rectangles round boxes in its image."""

    lidar2img: np.ndarray
    """(4, 4), to (u * depth, v * depth, depth, 1)"""
    shape: tuple[int, int]
    """(H, W)"""
    limits: np.ndarray
    """(N, 4) int, pixels within the image: left, top, right, bottom, the latter two just outside"""
    depth: np.ndarray
    """(N,) metres along the optical axis, the mean of a box's corners"""
    seen: np.ndarray
    """(N,) bool: which boxes count"""

    def window(self, box: int) -> tuple[slice, slice]:
        """Rows and columns of a box."""
        left, top, right, bottom = self.limits[box]
        return slice(top, bottom), slice(left, right)

    def far_to_near(self) -> list[int]:
        """The boxes that are seen."""
        return [box for box in np.argsort(-self.depth, kind='stable').tolist() if self.seen[box]]

    def front(self) -> np.ndarray:
        """(H, W) int: the nearest box over each pixel, or :data:`NO_BOX`."""
        front = np.full(self.shape, NO_BOX, dtype=np.int16)
        for box in self.far_to_near():
            front[self.window(box)] = box
        return front

    def in_front(self) -> set[int]:
        """Boxes that are the nearest at some pixel."""
        counts = np.bincount(self.front().ravel() + 1)  # NO_BOX is -1
        return set(np.flatnonzero(counts[1:]).tolist())


def view_boxes(
    corners: np.ndarray,
    lidar2img: np.ndarray,
    shape: tuple[int, int],
    *,
    candidates: Sequence[bool] | None = None,
    min_size: int = 2,
) -> View:
    """Look at boxes through a camera.

    Those are seen of which all corners lie before the camera and some of the rectangle in the
    image.

    Args:
        corners: (N, 8, 3), metres, in the LiDAR frame.
        lidar2img: (4, 4), to (u * depth, v * depth, depth, 1).
        shape: (H, W).
        candidates: (N,) which boxes may be seen; all by default.
        min_size: pixels in the image along both sides of a rectangle that is seen.
    """
    pixels, depth = project(corners, lidar2img)
    size = np.array(shape[::-1])
    low = np.clip(np.floor(pixels.min(axis=1)), 0, size)
    high = np.clip(np.ceil(pixels.max(axis=1)), 0, size)
    seen = (depth > 0).all(axis=1) & (high - low >= min_size).all(axis=1)
    return View(
        lidar2img=np.asarray(lidar2img),
        shape=tuple(shape),
        limits=np.concatenate([low, high], axis=1).astype(int),
        depth=depth.mean(axis=1),
        seen=seen if candidates is None else seen & np.asarray(candidates, dtype=bool),
    )


def project(points: np.ndarray, lidar2img: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 3), metres -> pixels (..., 2), right and down, and depth (...), metres.

    Pixels mean nothing where the depth is not positive.
    """
    projected = points @ lidar2img[:3, :3].T + lidar2img[:3, 3]
    depth = projected[..., 2]
    return projected[..., :2] / np.where(depth > 0, depth, 1)[..., None], depth
