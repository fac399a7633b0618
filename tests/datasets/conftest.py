"""A sample with two cameras, as mmdet3d's loaders leave it."""

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmdet3d.structures.points import LiDARPoints

from projects.cmt_aqr.datasets.transforms import ComputeLidar2Img

# Columns: where the LiDAR's x, y and z appear in a camera that looks along +y.
FORWARD = np.array([[1.0, 0, 0, 0.1], [0, 0, -1, -0.3], [0, 1, 0, -0.4], [0, 0, 0, 1]])


def camera(yaw: float, focal: float, size: tuple[int, int]) -> dict:
    """Calibration as in an info file: 3 x 3 and 4 x 4, lists; size is (height, width)."""
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]]
    cam2img = [[focal, 0, size[1] / 2 + 3], [0, focal, size[0] / 2 - 2], [0, 0, 1]]
    return dict(cam2img=cam2img, lidar2cam=(FORWARD @ turn).tolist())


@pytest.fixture
def sample() -> dict:
    """Points, boxes with velocity, two images of different sizes, and their matrices."""
    rng = np.random.default_rng(0)
    sizes = [(90, 160), (60, 100)]
    cameras = [camera(0.0, 100.0, sizes[0]), camera(1.0, 60.0, sizes[1])]
    boxes = np.array(
        [
            [1.0, 12.0, -1.5, 4.2, 1.9, 1.6, 0.3, 2.0, 1.0],
            [-9.0, 8.0, -1.0, 0.7, 0.8, 1.8, -2.0, 0.0, -1.0],
            [-3.0, 25.0, -1.2, 10.0, 2.8, 3.5, 1.7, 0.0, 0.0],
        ]
    )
    results = dict(
        points=LiDARPoints(torch.from_numpy(rng.normal(size=(50, 5)) * 10).float(), points_dim=5),
        gt_bboxes_3d=LiDARInstance3DBoxes(torch.from_numpy(boxes).float(), box_dim=9),
        gt_labels_3d=np.arange(3),
        img=[rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes],
        cam2img=[c['cam2img'] for c in cameras],
        lidar2cam=[c['lidar2cam'] for c in cameras],
    )
    return ComputeLidar2Img()(results)
