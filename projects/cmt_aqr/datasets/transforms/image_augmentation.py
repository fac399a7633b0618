"""Image augmentation that keeps the cameras' matrices consistent with the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS


class Draw(NamedTuple):
    """Random numbers of one augmentation, independent of the image size."""

    zoom: float  # relative to the resize factor that fills the final size
    bottom_cut: float  # share of the resized image's height cut off at the bottom
    left: float  # where the crop starts, from 0 (left end) to 1 (right end)
    flip: bool
    rotation: float  # degrees, counter-clockwise


@TRANSFORMS.register_module()
class ResizeCropFlipImage(BaseTransform):
    """The image augmentation of PETR and CMT: resize, crop, mirror, rotate.

    The crop takes the lower part of the resized image, which shows the road; the area above and to
    the right that the resized image does not cover is black. Without training, the image is resized
    to fill the final size and cropped at the centre of its width. Everything is derived from the
    size of each image, so cameras of any resolution fill the same part of the final size; and the
    matrices follow the resized size in whole pixels rather than the requested factor.

    Images that were decoded at a part of their size, see `LoadMultiViewImages`, are resized with
    cubic interpolation, which keeps them nearest to whole images resized with the linear one.

    Args:
        final_dim: (height, width) of the result, pixels.
        zoom_lim: limits of the resize factor in training, relative to the factor with which the
            image just fills the final size. (``resize_lim`` of PETR and CMT is relative to the
            loaded image: 0.47 to 0.625 for 1600 x 900 to 800 x 320 is a zoom of 0.94 to 1.25.)
        bot_pct_lim: limits of the share cut off at the bottom; their mean without training.
        rot_lim: limits of the rotation about the image centre in training, degrees.
        rand_flip: whether to mirror half of the samples in training.
        training: whether to augment at random.

    Raises:
        ValueError: invalid final size or limits.
    """

    def __init__(
        self,
        *,
        final_dim: Sequence[int],
        zoom_lim: Sequence[float] | None = None,
        bot_pct_lim: Sequence[float] = (0.0, 0.0),
        rot_lim: Sequence[float] = (0.0, 0.0),
        rand_flip: bool = True,
        training: bool = True,
    ) -> None:
        if len(final_dim) != 2 or min(final_dim) < 1:
            raise ValueError(f'final_dim={final_dim} is not a positive (height, width)')
        if training and (zoom_lim is None or not 0 < zoom_lim[0] <= zoom_lim[1]):
            raise ValueError(f'zoom_lim={zoom_lim} is not a positive (low, high)')
        if not 0 <= bot_pct_lim[0] <= bot_pct_lim[1] < 1:
            raise ValueError(f'bot_pct_lim={bot_pct_lim} is not a (low, high) within [0, 1)')
        self.final_dim = tuple(final_dim)
        self.zoom_lim = zoom_lim
        self.bot_pct_lim = bot_pct_lim
        self.rot_lim = rot_lim
        self.rand_flip = rand_flip
        self.training = training

    def transform(self, results: dict) -> dict:
        """Modifies ``img``, ``lidar2img`` and ``cam2img``; adds ``img_aug_matrix`` (V, 3, 3).

        The added matrix takes a pixel (u, v, 1) of the loaded image to the augmented image.

        Raises:
            ValueError: an image was decoded at a part of its size that does not fill ``final_dim``.
        """
        draw = self._draw()
        reductions = results.get('reductions', [1] * len(results['img']))
        views = [
            self._augment(image, draw, reduced=reduction > 1)
            for image, reduction in zip(results['img'], reductions, strict=True)
        ]
        results['img'] = [image for image, _ in views]
        results['img_aug_matrix'] = np.stack([matrix for _, matrix in views])
        padded = np.tile(np.eye(4), (len(views), 1, 1))
        padded[:, :3, :3] = results['img_aug_matrix']
        for key in ('lidar2img', 'cam2img'):
            results[key] = padded @ np.asarray(results[key], dtype=np.float64)
        results['img_shape'] = results['pad_shape'] = self.final_dim
        return results

    def _draw(self) -> Draw:
        if not self.training:
            return Draw(1.0, float(np.mean(self.bot_pct_lim)), 0.5, False, 0.0)
        return Draw(
            zoom=np.random.uniform(*self.zoom_lim),
            bottom_cut=np.random.uniform(*self.bot_pct_lim),
            left=np.random.uniform(0, 1),
            flip=bool(self.rand_flip and np.random.choice([0, 1])),
            rotation=np.random.uniform(*self.rot_lim),
        )

    def _augment(
        self, image: np.ndarray, draw: Draw, *, reduced: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) -> the augmented image (*final_dim, 3) and its pixel matrix (3, 3)."""
        height, width = image.shape[:2]
        final_h, final_w = self.final_dim
        fill = max(final_h / height, final_w / width)
        if reduced and fill > 1:
            raise ValueError(
                f'images were decoded at {width} x {height}, less than final_dim={self.final_dim}: '
                'LoadMultiViewImages must have the same final_dim, or none'
            )
        resize = draw.zoom * fill
        interpolation = cv2.INTER_CUBIC if reduced else cv2.INTER_LINEAR
        new_w, new_h = max(1, round(width * resize)), max(1, round(height * resize))
        left = int(draw.left * max(0, new_w - final_w))
        top = int((1 - draw.bottom_cut) * new_h) - final_h
        image = cv2.resize(image, (new_w, new_h), interpolation=interpolation)
        image = _crop(image, left, top, final_h, final_w)
        matrix = np.array(
            [[new_w / width, 0, -left], [0, new_h / height, -top], [0, 0, 1]], dtype=np.float64
        )
        if draw.flip:
            image = cv2.flip(image, 1)
            matrix = np.array([[-1, 0, final_w], [0, 1, 0], [0, 0, 1]]) @ matrix
        if draw.rotation:
            image, rotation = _rotate(image, draw.rotation)
            matrix = rotation @ matrix
        return image, matrix

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(final_dim={self.final_dim}, zoom_lim={self.zoom_lim}, '
            f'bot_pct_lim={self.bot_pct_lim}, rot_lim={self.rot_lim}, rand_flip={self.rand_flip}, '
            f'training={self.training})'
        )


def _crop(image: np.ndarray, left: int, top: int, height: int, width: int) -> np.ndarray:
    """Crops a window; pixels outside of the image are black."""
    inside = image[max(0, top) : top + height, left : left + width]
    if inside.shape[:2] == (height, width):
        return inside
    window = np.zeros((height, width, *image.shape[2:]), dtype=image.dtype)
    first_row = max(0, -top)
    window[first_row : first_row + inside.shape[0], : inside.shape[1]] = inside
    return window


def _rotate(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotates an image about its centre; returns it and the matrix (3, 3) of its coordinates."""
    height, width = image.shape[:2]
    rotation = np.eye(3)
    # cv2 counts from the centre of the first pixel, these coordinates from its corner.
    rotation[:2] = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turned = cv2.warpAffine(image, rotation[:2], (width, height))
    rotation[:2, 2] += 0.5 - rotation[:2, :2] @ (0.5, 0.5)
    return turned, rotation
