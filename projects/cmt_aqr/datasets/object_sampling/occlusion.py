"""What nearer boxes hide once objects are pasted: whole objects, and single points.

The boxes of a sample are its own, the real ones, and after them in the same arrays the pasted ones.
What is real is never hidden by what is real, for the sensors saw it.

Shapes: P points, (H, W) size of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .views import NO_BOX, View, project


def hidden_boxes(views: Sequence[View], *, num_real: int) -> set[int]:
    """Boxes that pasting leaves nothing of in any image, though some camera would see them.

    Args:
        views: of the boxes, in each camera; one or more.
        num_real: how many of the boxes, the first, are real.
    """
    real = np.arange(len(views[0].seen)) < num_real
    before = [view._replace(seen=view.seen & real).in_front() for view in views]
    pasted = {box for view in views for box in view.far_to_near() if box >= num_real}
    return pasted.union(*before) - set().union(*(view.in_front() for view in views))


def hidden_points(
    points: np.ndarray, owner: np.ndarray, views: Sequence[View], *, num_real: int
) -> np.ndarray:
    """(P,) bool: points that in some camera lie behind what is nearer.

    That is a pasted box, and for points of pasted boxes any other box.

    Args:
        points: (P, 3), metres, in the LiDAR frame.
        owner: (P,) the box that a point was pasted with, or ``NO_BOX`` for a real point.
        views: of the boxes, in each camera.
        num_real: how many of the boxes, the first, are real.
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
