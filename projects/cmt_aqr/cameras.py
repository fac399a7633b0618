"""The cameras of a batch, whose samples may have different numbers of cameras.

Shapes: B batch, V cameras.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .transfer import to_device


class Cameras(NamedTuple):
    """The cameras of a batch, padded to the largest number in a sample."""

    lidar2img: Tensor
    """(B, V, 4, 4)"""
    img2lidar: Tensor
    """(B, V, 4, 4)"""
    camera_mask: Tensor
    """(B, V), bool, True for the cameras that a sample has"""
    complete: bool
    """whether every sample has all cameras; known without waiting for the device"""
    image_shape: tuple[int, int]
    """height and width of the padded images, pixels"""
    key: Hashable = None
    """equal for equal cameras, known without waiting for the device; ``None`` if unknown"""


def batch_cameras(metas: Sequence[Mapping], like: Tensor) -> Cameras:
    """The cameras of a batch, padded with identity matrices.

    Args:
        metas: ``lidar2img`` (V_b, 4, 4) and ``pad_shape`` of each sample.
        like: (B, V, ...) on the target device.

    Raises:
        ValueError: images padded to different shapes, or more matrices than images.
    """
    shapes = {tuple(meta['pad_shape'][:2]) for meta in metas}
    if len(shapes) != 1:
        raise ValueError(f'the images of a batch are padded to different shapes: {shapes}')
    batch_size, num_views = like.shape[:2]
    # Inverted in double precision: entries range from thousands of pixels to almost zero.
    lidar2img = np.tile(np.eye(4), (batch_size, num_views, 1, 1))
    camera_mask = torch.zeros(batch_size, num_views, dtype=torch.bool)
    for index, meta in enumerate(metas):
        matrices = np.asarray(meta['lidar2img'], dtype=np.float64).reshape(-1, 4, 4)
        if len(matrices) > num_views:
            raise ValueError(
                f'sample {index} has {len(matrices)} lidar2img matrices for {num_views} images'
            )
        lidar2img[index, : len(matrices)] = matrices
        camera_mask[index, : len(matrices)] = True
    image_shape = shapes.pop()
    return Cameras(
        lidar2img=to_device(lidar2img, like, torch.float32),
        img2lidar=to_device(np.linalg.inv(lidar2img), like, torch.float32),
        camera_mask=to_device(camera_mask, like, torch.bool),
        complete=bool(camera_mask.all()),
        image_shape=image_shape,
        key=(lidar2img.tobytes(), camera_mask.numpy().tobytes(), image_shape),
    )
