"""mmdet3d's augmentations of the whole scene, extended to the cameras' matrices.

Points and boxes move by p' = A p. The matrices M of a camera become M A^-1, so that a moved point
projects to the pixel of the original point. A is read from mmdet3d's own record of its
augmentation, so that the two cannot disagree.
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
    """Rotates, scales and translates points, boxes and cameras together.

    Args:
        rot_range: limits of the angle about z, radians.
        scale_ratio_range: limits of the factor.
        translation_std: standard deviation of the translation along x, y, z, metres.
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
        """Modifies ``points``, ``gt_bboxes_3d``, ``lidar2img`` and ``lidar2cam``, if they exist."""
        without_points = 'points' not in input_dict
        if without_points:  # a camera-only model; mmdet3d needs a cloud
            input_dict['points'] = LiDARPoints(torch.empty(0, 3))
        results = super().transform(input_dict)
        if without_points:
            del results['points']
        augmentation = np.eye(4)
        # mmdet3d records the matrix for row vectors: p' = s * (p R^T) + t.
        rotation = np.asarray(results['pcd_rotation'], dtype=np.float64).reshape(3, 3).T
        augmentation[:3, :3] = results['pcd_scale_factor'] * rotation
        augmentation[:3, 3] = results['pcd_trans']
        _move_cameras(results, augmentation)
        return results


@TRANSFORMS.register_module()
class RandomFlip3DAll(RandomFlip3D):
    """Mirrors points, boxes and cameras, but not the images.

    mmdet3d's `RandomFlip3D` would draw a second flip for the images and fail on a list of them, so
    they are hidden from it. `ResizeCropFlipImage` mirrors images.

    Args:
        flip_ratio_bev_horizontal: probability of y -> -y.
        flip_ratio_bev_vertical: probability of x -> -x.
    """

    def __init__(
        self, *, flip_ratio_bev_horizontal: float = 0.5, flip_ratio_bev_vertical: float = 0.5
    ) -> None:
        super().__init__(
            sync_2d=False,
            # mmcv does not accept an int as a probability.
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
    """Applies an augmentation (4, 4) of the scene to the matrices of the cameras.

    Keeps the product of all augmentations as ``lidar_aug_matrix``, from the LiDAR frame of the
    keyframe to the current frame of the points.
    """
    results['lidar_aug_matrix'] = augmentation @ results.get('lidar_aug_matrix', np.eye(4))
    inverse = np.linalg.inv(augmentation)
    for key in _MOVED_KEYS:
        if key in results:
            results[key] = np.asarray(results[key], dtype=np.float64) @ inverse
