"""LiDAR-to-pixel matrices from mmdet3d's calibration of each camera."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ComputeLidar2Img(BaseTransform):
    """Adds ``lidar2img`` = ``cam2img`` @ ``lidar2cam`` for every view.

    mmdet3d's multi-view loader leaves ``cam2img`` (3 x 3 or 4 x 4) and ``lidar2cam`` (4 x 4) as
    lists and computes no product. All three become float64 arrays (V, 4, 4): float32 would lose a
    hundredth of a pixel at 60 m with every augmentation.

    Raises:
        KeyError: the calibration is missing.
        ValueError: the two lists differ in length.
    """

    def transform(self, results: dict) -> dict:
        """Turns ``cam2img`` and ``lidar2cam`` into arrays and adds ``lidar2img``."""
        missing = [key for key in ('cam2img', 'lidar2cam') if key not in results]
        if missing:
            raise KeyError(f'{missing} not in the sample: load the images before ComputeLidar2Img')
        if len(results['cam2img']) != len(results['lidar2cam']):
            raise ValueError(
                f'{len(results["cam2img"])} cam2img but {len(results["lidar2cam"])} lidar2cam '
                'matrices in one sample'
            )
        for key in ('cam2img', 'lidar2cam'):
            results[key] = np.stack([_homogeneous(matrix) for matrix in results[key]])
        results['lidar2img'] = results['cam2img'] @ results['lidar2cam']
        return results


def _homogeneous(matrix: np.ndarray | list) -> np.ndarray:
    """Pads a matrix of up to 4 x 4 to 4 x 4 float64 with the identity."""
    matrix = np.asarray(matrix, dtype=np.float64)
    padded = np.eye(4)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded
