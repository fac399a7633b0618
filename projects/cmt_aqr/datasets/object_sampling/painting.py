"""Patches of pasted objects in an image."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from .views import View


def paint(
    image: np.ndarray, view: View, patches: Mapping[int, np.ndarray], mixup_rate: float
) -> np.ndarray:
    """Lay patches over an image from far to near, the image's own boxes among them.

    Args:
        image: (H, W, 3) uint8; it stays as it is.
        view: of all boxes in it.
        patches: (h, w, 3) uint8 of any size, by the number of their box. Boxes without one are the
            image's own: what it shows of them is laid over the patches behind them.
        mixup_rate: share of a patch in what is seen in its place.

    Returns:
        (H, W, 3) uint8.
    """
    canvas = image.copy()
    for box in view.far_to_near():
        window = view.window(box)
        below = canvas[window]
        patch = cv2.resize(patches.get(box, image[window]), below.shape[1::-1])
        canvas[window] = cv2.addWeighted(patch, mixup_rate, below, 1 - mixup_rate, 0)
    return canvas
