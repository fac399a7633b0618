"""A training sample of random points, images and boxes; random clouds need torch alone.

The random numbers come from numpy, which draws the same ones on all machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..grid import range_of
from .decoder_inputs import NUM_CAMERAS

if TYPE_CHECKING:
    from mmengine.config import Config


def random_batch(
    cfg: Config,
    *,
    num_points: int = 30_000,
    num_boxes: int = 30,
    num_cameras: int = NUM_CAMERAS,
) -> dict:
    """A batch of one random sample in the sizes of a config, always the same.

    The density of points falls with distance as for a spinning sensor, but they fill more voxels
    than those on real surfaces. The cameras look outwards from the origin.

    Args:
        cfg: gives the range of the points, the image size and the classes.
        num_points: number of points, some of which lie outside the range.
        num_boxes: number of boxes of a car's size, all inside the range.
        num_cameras: number of cameras.
    """
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    limits = range_of(cfg.model)
    steps = cfg.test_dataloader.dataset.pipeline
    height, width = next(step.final_dim for step in steps if step.type == 'ResizeCropFlipImage')
    cloud = random_cloud(num_points, limits)
    random = np.random.default_rng(1)
    boxes = np.hstack(
        [
            random.uniform(limits[:3], limits[3:], (num_boxes, 3)),
            np.tile([4.6, 1.9, 1.7], (num_boxes, 1)),
            random.uniform(-np.pi, np.pi, (num_boxes, 1)),
            random.normal(size=(num_boxes, 2)),
        ]
    )
    images = random.integers(0, 255, (num_cameras, 3, height, width), dtype=np.uint8)
    sample = Det3DDataSample(
        metainfo={
            'lidar2img': _ring_of_cameras(num_cameras, height, width),
            'box_type_3d': LiDARInstance3DBoxes,
        }
    )
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(torch.from_numpy(boxes).float(), box_dim=9),
        labels_3d=torch.arange(num_boxes) % sum(map(len, cfg.model.pts_bbox_head.tasks)),
    )
    inputs = {'points': [cloud], 'img': [torch.from_numpy(images)]}
    return {'inputs': inputs, 'data_samples': [sample]}


def random_cloud(num_points: int, limits: Sequence[float]) -> Tensor:
    """(N, 5): x, y, z, intensity and time of points with uniform azimuth, distance and height.

    Args:
        num_points: N; some points lie outside the range.
        limits: ``(x_min, y_min, z_min, x_max, y_max, z_max)``, metres.
    """
    random = np.random.default_rng(0)
    azimuth, distance, height, intensity = random.uniform(
        [0, 0, limits[2], 0], [2 * np.pi, limits[3], limits[5], 255], (num_points, 4)
    ).T
    x, y = distance * np.cos(azimuth), distance * np.sin(azimuth)
    cloud = np.stack([x, y, height, intensity, np.zeros(num_points)], axis=1)
    return torch.from_numpy(cloud).float()


def _ring_of_cameras(number: int, height: int, width: int) -> np.ndarray:
    """(V, 4, 4) LiDAR -> pixel of V cameras around, with a field of view of 70 degrees."""
    focal = width / 2 / np.tan(np.radians(35))
    cam2img = np.eye(4)
    cam2img[:2, :3] = [[focal, 0, width / 2], [0, focal, height / 2]]
    matrices = []
    for yaw in np.arange(number) * 2 * np.pi / number:
        lidar2cam = np.eye(4)
        # Rows: right, down and forward of a camera that looks along (cos yaw, sin yaw).
        lidar2cam[:3, :3] = [
            [np.sin(yaw), -np.cos(yaw), 0],
            [0, 0, -1],
            [np.cos(yaw), np.sin(yaw), 0],
        ]
        matrices.append(cam2img @ lidar2cam)
    return np.stack(matrices)
