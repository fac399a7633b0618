"""Collisions of the ego vehicle with boxes on a grid, as in ST-P3 (Hu et al., ECCV 2022)."""

from __future__ import annotations

import cv2
import numpy as np

CELL = 0.5  # metres
RANGE = 50.0
"""metres to each side of the ego vehicle that the grid covers"""
EGO_LENGTH, EGO_WIDTH = 4.084, 1.85
EGO_CENTRE = 0.985793
"""metres from the rear axle, the origin of the ego frame, to the middle of the vehicle"""


def collides(waypoint: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether the ego vehicle at a waypoint covers a cell that a box covers as well.

    Cells are drawn by OpenCV, which covers nearly every cell that a rectangle touches, so that
    small objects are not lost.

    Args:
        waypoint: (3,), x, y and yaw of the ego vehicle.
        boxes: (N, 5), x, y, length, width and yaw in the same frame.
    """
    x, y, yaw = waypoint
    middle = (x + EGO_CENTRE * np.cos(yaw), y + EGO_CENTRE * np.sin(yaw))
    ego = np.array([[*middle, EGO_LENGTH, EGO_WIDTH, yaw]])
    # Boxes out of reach are not drawn.
    reach = np.hypot(EGO_LENGTH, EGO_WIDTH) / 2 + np.hypot(boxes[:, 2], boxes[:, 3]) / 2 + 2 * CELL
    near = np.hypot(boxes[:, 0] - middle[0], boxes[:, 1] - middle[1]) <= reach
    return bool((covered_cells(ego) & covered_cells(boxes[near])).any())


def covered_cells(boxes: np.ndarray) -> np.ndarray:
    """Cells (rows along x, columns along y), bool, that rectangles (N, 5) cover."""
    size = round(2 * RANGE / CELL)
    grid = np.zeros((size, size), dtype=np.uint8)
    for corners in _corners(boxes):
        pixels = np.floor((corners + RANGE) / CELL).astype(np.int32)
        cv2.fillPoly(grid, [pixels[:, ::-1]], 1)  # OpenCV counts columns first
    return grid.astype(bool)


def _corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 5) -> (N, 4, 2): corners around each rectangle."""
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) / 2
    local = signs * boxes[:, None, 2:4]
    cos, sin = np.cos(boxes[:, 4, None]), np.sin(boxes[:, 4, None])
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    return np.stack([x, y], axis=-1) + boxes[:, None, :2]
