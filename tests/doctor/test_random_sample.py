"""The random sample of the doctor and the benchmarks."""

import pytest
import torch
from mmengine.config import Config

from projects.cmt_aqr.doctor.random_sample import random_batch
from projects.cmt_aqr.geometry import project


@pytest.fixture
def cfg(repo_root):
    return Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')


def test_it_has_the_sizes_of_the_config(cfg):
    batch = random_batch(cfg, num_points=500, num_boxes=12)
    (cloud,), (images,), (sample,) = (*batch['inputs'].values(), batch['data_samples'])
    assert cloud.shape == (500, 5)
    assert images.shape == (6, 3, 64, 176)
    assert images.dtype == torch.uint8
    truth = sample.gt_instances_3d
    assert truth.labels_3d.tolist() == [*range(10), 0, 1]
    assert truth.bboxes_3d.tensor.shape == (12, 9)
    low, high = torch.tensor(cfg.point_cloud_range).split(3)
    assert ((truth.bboxes_3d.bottom_center >= low) & (truth.bboxes_3d.bottom_center <= high)).all()


def test_its_cameras_cover_all_directions(cfg):
    (sample,) = random_batch(cfg)['data_samples']
    azimuth = torch.arange(0, 360, 5) * torch.pi / 180
    ring = torch.stack([10 * azimuth.cos(), 10 * azimuth.sin(), 0 * azimuth], dim=1)
    cameras = torch.as_tensor(sample.lidar2img, dtype=torch.float32)
    seen = project(ring[None], cameras[None], (64, 176)).visible[0]
    assert seen.any(dim=0).all()
    assert seen[0, 0]  # the first camera looks along x
    assert (seen.sum(dim=0) <= 2).all()
