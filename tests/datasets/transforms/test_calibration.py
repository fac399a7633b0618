"""`lidar2img` from mmdet3d's two lists."""

import numpy as np
import pytest
from mmengine.fileio import load

from projects.cmt_aqr.datasets.transforms import ComputeLidar2Img


def test_product_in_float64(sample):
    for key in ('cam2img', 'lidar2cam', 'lidar2img'):
        assert sample[key].shape == (2, 4, 4)
        assert sample[key].dtype == np.float64
    # The point 10.4 m ahead, 0.9 m right and 0.3 m below lies 10 m deep, 1 m right, 0 m down.
    u, v, depth, one = sample['lidar2img'][0] @ (0.9, 10.4, -0.3, 1)
    assert (u / depth, v / depth, depth, one) == pytest.approx((93.0, 43.0, 10.0, 1.0))


def test_what_is_missing_is_named():
    with pytest.raises(KeyError, match='lidar2cam'):
        ComputeLidar2Img()(dict(cam2img=[np.eye(3)]))
    with pytest.raises(ValueError, match='2 cam2img but 1 lidar2cam'):
        ComputeLidar2Img()(dict(cam2img=[np.eye(3)] * 2, lidar2cam=[np.eye(4)]))


def test_real_frame_projects_boxes_where_nuscenes_does(real_frame):
    """Boxes in the LiDAR frame project to the 2D centres that nuScenes' converter recorded."""
    info = load(next(real_frame.glob('*.pkl')))['data_list'][0]
    cameras = info['images'].values()
    results = ComputeLidar2Img()(
        dict(
            cam2img=[camera['cam2img'] for camera in cameras],
            lidar2cam=[camera['lidar2cam'] for camera in cameras],
        )
    )
    centres = np.array([[*instance['bbox_3d'][:3], 1] for instance in info['instances']])
    compared = 0
    for lidar2img, name in zip(results['lidar2img'], info['images'], strict=True):
        scaled = centres @ lidar2img.T
        pixels = scaled[:, :2] / scaled[:, 2:3]
        for instance in info['cam_instances'][name]:
            distance = np.linalg.norm(pixels - instance['center_2d'], axis=1)
            found = np.argmin(distance)
            assert distance[found] < 0.1
            assert scaled[found, 2] == pytest.approx(instance['depth'], abs=0.01)
            compared += 1
    assert compared == 84
