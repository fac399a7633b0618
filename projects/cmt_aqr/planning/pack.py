"""Packing of a sample with the ego vehicle's future."""

from __future__ import annotations

import numpy as np
import torch
from mmdet3d.datasets.transforms import Pack3DDetInputs
from mmdet3d.registry import TRANSFORMS

from .ego_future import COMMANDS

_MOVED = ('lidar_aug_matrix', 'pcd_rotation', 'pcd_scale_factor', 'pcd_trans')


@TRANSFORMS.register_module()
class PackEgoFuture(Pack3DDetInputs):
    """mmdet3d's packing, with the ego vehicle's future among the inputs.

    ``inputs['ego']`` has ``waypoints`` (T, 3), ``mask`` (T,), ``status`` (2,) and ``command``, a
    one-hot (3,), all float32; see :class:`~projects.cmt_aqr.planning.ego_future.EgoFuture`. A
    sample whose future is not known, such as a single frame, has no ``ego``. The metadata get
    ``lidar2ego`` (4, 4), with which plans are drawn.
    """

    def pack_single_results(self, results: dict) -> dict:
        """Returns ``inputs`` and ``data_samples``.

        Raises:
            ValueError: the scene was augmented, which would move the future too.
        """
        if moved := [key for key in _MOVED if key in results]:
            raise ValueError(
                f'PackEgoFuture: the pipeline augments the scene ({moved[0]}), and the future '
                'would not move with it; remove the augmentation of scenes'
            )
        packed = super().pack_single_results(results)
        lidar2ego = results.get('lidar_points', {}).get('lidar2ego')
        if lidar2ego is not None:
            packed['data_samples'].set_metainfo(dict(lidar2ego=np.asarray(lidar2ego)))
        if 'ego_future' not in results:
            return packed
        future = results['ego_future']
        command = np.eye(len(COMMANDS))[future['command']]
        arrays = dict(
            waypoints=future['waypoints'],
            mask=future['mask'],
            status=future['status'],
            command=command,
        )
        packed['inputs']['ego'] = {
            name: torch.as_tensor(np.asarray(array), dtype=torch.float32)
            for name, array in arrays.items()
        }
        return packed
