"""A training sample of random points, images and boxes; random clouds need torch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .decoder_inputs import NUM_CAMERAS

if TYPE_CHECKING:
    from mmengine.config import Config


def random_batch(cfg: Config, *, num_points: int = 30_000, num_boxes: int = 30) -> dict:
    """A batch of one random sample in the sizes of a config.

    The density of points falls with distance as for a spinning sensor, but they fill more voxels
    than those on real surfaces. Six cameras look outwards from the origin.

    Args:
        cfg: gives the range of the points, the image size and the classes.
        num_points: number of points, some of which lie outside the range.
        num_boxes: number of boxes, all inside the range.
    """
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    limits = torch.tensor(cfg.model.pts_bbox_head.point_cloud_range)
    height, width = _image_size(cfg)
    sample = Det3DDataSample(
        metainfo={
            'lidar2img': _ring_of_cameras(height, width),
            'box_type_3d': LiDARInstance3DBoxes,
        }
    )
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(_random_boxes(num_boxes, limits), box_dim=9),
        labels_3d=torch.arange(num_boxes) % len(cfg.class_names),
    )
    images = torch.randint(0, 255, (NUM_CAMERAS, 3, height, width), dtype=torch.uint8)
    return {
        'inputs': {'points': [random_cloud(num_points, limits)], 'img': [images]},
        'data_samples': [sample],
    }


def random_cloud(num_points: int, limits: Tensor) -> Tensor:
    """(N, 5): x, y, z, intensity and time of points with uniform azimuth, distance and height.

    Args:
        num_points: N; some points lie outside the range.
        limits: ``(x_min, y_min, z_min, x_max, y_max, z_max)``, metres.
    """
    azimuth = torch.rand(num_points) * 2 * torch.pi
    distance = torch.rand(num_points) * limits[3]
    height = limits[2] + torch.rand(num_points) * (limits[5] - limits[2])
    intensity = torch.rand(num_points) * 255
    x, y = distance * azimuth.cos(), distance * azimuth.sin()
    return torch.stack([x, y, height, intensity, torch.zeros(num_points)], dim=1)


def _image_size(cfg: Config) -> tuple[int, int]:
    """(height, width) of the images that the test pipeline gives."""
    steps = cfg.test_dataloader.dataset.pipeline
    return next(tuple(step.final_dim) for step in steps if step.type == 'ResizeCropFlipImage')


def _random_boxes(num_boxes: int, limits: Tensor) -> Tensor:
    """(num_boxes, 9): boxes of a car's size anywhere in the range."""
    bottom_centre = limits[:3] + torch.rand(num_boxes, 3) * (limits[3:] - limits[:3])
    size = torch.tensor([4.6, 1.9, 1.7]).expand(num_boxes, -1)
    yaw = (torch.rand(num_boxes, 1) * 2 - 1) * torch.pi
    velocity = torch.randn(num_boxes, 2)
    return torch.cat([bottom_centre, size, yaw, velocity], dim=1)


def _ring_of_cameras(height: int, width: int) -> np.ndarray:
    """(6, 4, 4) LiDAR -> pixel of cameras 60 degrees apart with a field of view of 70 degrees."""
    focal = width / 2 / np.tan(np.radians(35))
    cam2img = np.eye(4)
    cam2img[:2, :3] = [[focal, 0, width / 2], [0, focal, height / 2]]
    matrices = []
    for yaw in np.arange(NUM_CAMERAS) * 2 * np.pi / NUM_CAMERAS:
        lidar2cam = np.eye(4)
        # Rows: right, down and forward of a camera that looks along (cos yaw, sin yaw).
        lidar2cam[:3, :3] = [
            [np.sin(yaw), -np.cos(yaw), 0],
            [0, 0, -1],
            [np.cos(yaw), np.sin(yaw), 0],
        ]
        matrices.append(cam2img @ lidar2cam)
    return np.stack(matrices)
