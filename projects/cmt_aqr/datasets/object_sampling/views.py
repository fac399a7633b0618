"""Rectangles of boxes in the image of a camera, and their order in depth.

Shapes: N boxes; H and W of the image, pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NO_BOX = -1


class View(NamedTuple):
    """Boxes in the image of a camera, as axis-aligned rectangles."""

    lidar2img: np.ndarray
    """(4, 4), to (u * depth, v * depth, depth, 1)"""
    shape: tuple[int, int]
    """(H, W)"""
    rectangles: np.ndarray
    """(N, 4) int, pixels within the image: left, top, and exclusive right, bottom"""
    depth: np.ndarray
    """(N,) mean depth of the corners along the optical axis, metres"""
    seen: np.ndarray
    """(N,) bool: whether the camera sees the box"""

    def window(self, box: int) -> tuple[slice, slice]:
        """Returns rows and columns of a box."""
        left, top, right, bottom = self.rectangles[box]
        return slice(top, bottom), slice(left, right)

    def far_to_near(self) -> list[int]:
        """Returns the visible boxes in decreasing depth."""
        return [box for box in np.argsort(-self.depth, kind='stable').tolist() if self.seen[box]]

    def front(self) -> np.ndarray:
        """(H, W) int: the nearest box at each pixel, or :data:`NO_BOX`."""
        front = np.full(self.shape, NO_BOX, dtype=np.int16)
        for box in self.far_to_near():
            front[self.window(box)] = box
        return front

    def in_front(self) -> set[int]:
        """Returns the boxes that are the nearest at some pixel."""
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
    """Projects boxes into the image of a camera.

    A box is visible if all its corners lie before the camera and its rectangle overlaps the image.

    Args:
        corners: (N, 8, 3), metres, LiDAR frame.
        lidar2img: (4, 4), to (u * depth, v * depth, depth, 1).
        shape: (H, W).
        candidates: (N,) whether each box may be visible; all by default.
        min_size: minimum size of a visible rectangle within the image along both sides, pixels.
    """
    pixels, depth = project(corners, lidar2img)
    size = np.array(shape[::-1])
    low = np.clip(np.floor(pixels.min(axis=1)), 0, size)
    high = np.clip(np.ceil(pixels.max(axis=1)), 0, size)
    seen = (depth > 0).all(axis=1) & (high - low >= min_size).all(axis=1)
    return View(
        lidar2img=np.asarray(lidar2img),
        shape=tuple(shape),
        rectangles=np.concatenate([low, high], axis=1).astype(int),
        depth=depth.mean(axis=1),
        seen=seen if candidates is None else seen & np.asarray(candidates, dtype=bool),
    )


def project(points: np.ndarray, lidar2img: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (..., 3) in metres -> pixels (..., 2), right and down, and depth (...) in metres.

    Pixels are meaningless where the depth is not positive.
    """
    projected = points @ lidar2img[:3, :3].T + lidar2img[:3, 3]
    depth = projected[..., 2]
    return projected[..., :2] / np.where(depth > 0, depth, 1)[..., None], depth
