"""mmdet3d's augmentations of the whole scene, with the cameras' matrices kept true.

Points and boxes move by p' = A p. A camera does not move with them, so its matrices become M A^-1:
the moved point then projects to the pixel where the original one did. A is read from what mmdet3d
itself records of its augmentation, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet3d.datasets.transforms import GlobalRotScaleTrans, RandomFlip3D
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARPoints

_MOVED_KEYS = ('lidar2cam', 'lidar2img')


@TRANSFORMS.register_module()
class GlobalRotScaleTransAll(GlobalRotScaleTrans):
    """Rotates, scales and moves points, boxes and cameras together.

    Args:
        rot_range: limits of the angle about z, radians.
        scale_ratio_range: limits of the factor.
        translation_std: standard deviation of the shift along x, y, z, metres.
    """

    def __init__(
        self,
        *,
        rot_range: Sequence[float] = (-0.785, 0.785),
        scale_ratio_range: Sequence[float] = (0.9, 1.1),
        translation_std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__(
            rot_range=list(rot_range),
            scale_ratio_range=list(scale_ratio_range),
            translation_std=list(translation_std),
        )

    def transform(self, input_dict: dict) -> dict:
        """Modifies what is there of points, ``gt_bboxes_3d``, ``lidar2img`` and ``lidar2cam``."""
        without_points = 'points' not in input_dict
        if without_points:  # a model of cameras alone; mmdet3d cannot do without a cloud
            input_dict['points'] = LiDARPoints(torch.empty(0, 3))
        results = super().transform(input_dict)
        if without_points:
            del results['points']
        augmentation = np.eye(4)
        # mmdet3d records the matrix that stands to the right of row vectors: p' = s * (p R^T) + t.
        rotation = np.asarray(results['pcd_rotation'], dtype=np.float64).reshape(3, 3).T
        augmentation[:3, :3] = results['pcd_scale_factor'] * rotation
        augmentation[:3, 3] = results['pcd_trans']
        _move_cameras(results, augmentation)
        return results


@TRANSFORMS.register_module()
class RandomFlip3DAll(RandomFlip3D):
    """Mirrors points, boxes and cameras; the images stay as they are.

    mmdet3d's `RandomFlip3D` would draw a second flip for the images and fail on a list of them, so
    they are kept from it. `ResizeCropFlipImage` mirrors images.

    Args:
        flip_ratio_bev_horizontal: probability of y -> -y.
        flip_ratio_bev_vertical: probability of x -> -x.
    """

    def __init__(
        self, *, flip_ratio_bev_horizontal: float = 0.5, flip_ratio_bev_vertical: float = 0.5
    ) -> None:
        super().__init__(
            sync_2d=False,
            # mmcv takes no whole number for a probability.
            flip_ratio_bev_horizontal=float(flip_ratio_bev_horizontal),
            flip_ratio_bev_vertical=float(flip_ratio_bev_vertical),
        )

    def transform(self, input_dict: dict) -> dict:
        """Modifies ``points``, ``gt_bboxes_3d``, ``lidar2img`` and ``lidar2cam``."""
        hidden = {key: input_dict.pop(key) for key in ('img',) if key in input_dict}
        results = super().transform(input_dict)
        results.update(hidden)
        signs = np.ones(4)
        signs[0] = -1 if results['pcd_vertical_flip'] else 1
        signs[1] = -1 if results['pcd_horizontal_flip'] else 1
        _move_cameras(results, np.diag(signs))
        return results


def _move_cameras(results: dict, augmentation: np.ndarray) -> None:
    """Follow an augmentation (4, 4) of the scene in whatever camera matrices there are.

    Keeps the product of all augmentations as ``lidar_aug_matrix``, from the LiDAR frame of the
    keyframe to the frame of the points as they now are.
    """
    results['lidar_aug_matrix'] = augmentation @ results.get('lidar_aug_matrix', np.eye(4))
    inverse = np.linalg.inv(augmentation)
    for key in _MOVED_KEYS:
        if key in results:
            results[key] = np.asarray(results[key], dtype=np.float64) @ inverse
