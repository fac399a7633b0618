"""Occlusion by pasted objects, of whole boxes and of single points.

The arrays of boxes hold the real boxes of the sample first and then the pasted ones. Real boxes and
points are never hidden by real boxes, since the sensors saw them.

Shapes: P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .views import NO_BOX, View, project


def hidden_boxes(views: Sequence[View], *, num_real: int) -> set[int]:
    """Returns the boxes that some camera would see and pasted boxes hide in every image.

    Args:
        views: the boxes in each of one or more cameras.
        num_real: number of real boxes.
    """
    real = np.arange(len(views[0].seen)) < num_real
    before = [view._replace(seen=view.seen & real).in_front() for view in views]
    pasted = {box for view in views for box in view.far_to_near() if box >= num_real}
    return pasted.union(*before) - set().union(*(view.in_front() for view in views))


def hidden_points(
    points: np.ndarray, owner: np.ndarray, views: Sequence[View], *, num_real: int
) -> np.ndarray:
    """(P,) bool: whether a point lies behind a nearer box in some camera.

    A real point is hidden by pasted boxes only, a pasted point by any box but its own.

    Args:
        points: (P, 3), metres, LiDAR frame.
        owner: (P,) the box that a point was pasted with, or ``NO_BOX`` for a real point.
        views: the boxes in each camera.
        num_real: number of real boxes.
    """
    hidden = np.zeros(len(points), dtype=bool)
    for view in views:
        pixels, depth = project(points, view.lidar2img)
        inside = (depth > 0) & ((pixels >= 0) & (pixels < view.shape[::-1])).all(axis=1)
        over = np.full(len(points), NO_BOX)
        column, row = np.floor(pixels[inside]).astype(int).T
        over[inside] = view.front()[row, column]
        covered = (over != NO_BOX) & (over != owner)
        covered[covered] = view.depth[over[covered]] < depth[covered]
        hidden |= covered & ((over >= num_real) | (owner != NO_BOX))
    return hidden
