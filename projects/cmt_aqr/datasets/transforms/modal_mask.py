"""Masked-modal training: whole sensors taken away."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ModalMask3D(BaseTransform):
    """Takes the LiDAR or all cameras away from a sample (CMT, Yan et al., ICCV 2023, section 3.4).

    In training, one draw per sample decides: LiDAR with `lidar_drop_prob`, else cameras with
    `camera_drop_prob`, never both; the released code has 0.25 for each. For evaluation without a
    sensor, `drop` takes it from every sample: ``dict(type='ModalMask3D', drop='lidar')`` in the
    test pipeline. Cameras without signal give black images; the matrices stay.

    Args:
        lidar_drop_prob: probability of losing the LiDAR.
        camera_drop_prob: probability of losing all cameras.
        drop: 'lidar' or 'camera' to take it always; the probabilities are then not used.
        dropped_lidar: 'empty' for a cloud of no points, or 'zeros' for all values multiplied by
            zero as in the released code, which leaves one occupied voxel at the origin.

    Raises:
        ValueError: for probabilities below 0 or of a sum above 1, and other words.
    """

    def __init__(
        self,
        *,
        lidar_drop_prob: float = 0.25,
        camera_drop_prob: float = 0.25,
        drop: str | None = None,
        dropped_lidar: str = 'empty',
    ) -> None:
        total = lidar_drop_prob + camera_drop_prob
        if min(lidar_drop_prob, camera_drop_prob) < 0 or total > 1:
            raise ValueError(
                f'lidar_drop_prob={lidar_drop_prob} and camera_drop_prob={camera_drop_prob} must '
                'be at least 0 and together at most 1'
            )
        if drop not in (None, 'lidar', 'camera'):
            raise ValueError(f"drop={drop!r} is none of None, 'lidar', 'camera'")
        if dropped_lidar not in ('empty', 'zeros'):
            raise ValueError(f"dropped_lidar={dropped_lidar!r} is neither 'empty' nor 'zeros'")
        self.lidar_drop_prob = lidar_drop_prob
        self.camera_drop_prob = camera_drop_prob
        self.drop = drop
        self.dropped_lidar = dropped_lidar

    def transform(self, results: dict) -> dict:
        """Modifies ``points`` or ``img``; notes the choice as ``dropped_modality``."""
        dropped = self.drop or self._draw()
        if dropped == 'lidar':
            points = results['points']
            keep = points.tensor[:0] if self.dropped_lidar == 'empty' else points.tensor * 0
            results['points'] = points.new_point(keep)
        elif dropped == 'camera':
            results['img'] = [np.zeros_like(image) for image in results['img']]
        results['dropped_modality'] = dropped
        return results

    def _draw(self) -> str | None:
        draw = np.random.rand()
        if draw < self.lidar_drop_prob:
            return 'lidar'
        return 'camera' if draw < self.lidar_drop_prob + self.camera_drop_prob else None

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(lidar_drop_prob={self.lidar_drop_prob}, '
            f'camera_drop_prob={self.camera_drop_prob}, drop={self.drop!r}, '
            f'dropped_lidar={self.dropped_lidar!r})'
        )
