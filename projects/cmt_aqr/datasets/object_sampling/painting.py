"""Patches of pasted objects in an image."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from .views import View


def paint(
    image: np.ndarray, view: View, patches: Mapping[int, np.ndarray], mixup_rate: float
) -> np.ndarray:
    """Paints patches over a copy of an image, in the order of all boxes from far to near.

    Args:
        image: (H, W, 3) uint8.
        view: all boxes in the image.
        patches: by box, (h, w, 3) uint8 of any size. For a box without a patch, the image itself is
            painted over the patches behind it.
        mixup_rate: weight of a patch in the result, above 0 and up to 1.

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
