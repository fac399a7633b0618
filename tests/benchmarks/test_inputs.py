"""The sample that every side is given."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from projects.cmt_aqr.benchmarks.inputs import (
    check_samples,
    first_batch,
    random_batch,
    resize_images,
)
from projects.cmt_aqr.geometry import project
from projects.cmt_aqr.usage_error import UsageError


@pytest.fixture
def cfg(repo_root):
    return Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')


def same(first: dict, second: dict) -> bool:
    inputs = zip(first['inputs'].values(), second['inputs'].values(), strict=True)
    return all(torch.equal(torch.as_tensor(a[0]), torch.as_tensor(b[0])) for a, b in inputs)


def test_the_first_sample_comes_without_chance(cfg, synthetic_root):
    """The config drops sensors, turns and mirrors the scene, and zooms into images."""
    batches = []
    for seed in (0, 1):
        np.random.seed(seed)
        torch.manual_seed(seed)
        batches.append(first_batch(cfg, str(synthetic_root)))
    assert same(*batches)
    (cloud,), (images,) = (batches[0]['inputs'][key] for key in ('points', 'img'))
    assert len(cloud) > 1000
    assert images.shape == (6, 3, 64, 176)
    assert images.float().std() > 10
    assert len(batches[0]['data_samples'][0].gt_instances_3d) > 0


def test_images_come_in_another_size_if_asked(cfg, synthetic_root):
    resize_images(cfg, (32, 96))
    for batch in (first_batch(cfg, str(synthetic_root)), random_batch(cfg, num_points=10)):
        assert batch['inputs']['img'][0].shape == (6, 3, 32, 96)


def test_a_folder_without_info_files_has_no_samples(tmp_path, synthetic_root):
    assert check_samples(str(synthetic_root)) == str(synthetic_root)
    with pytest.raises(UsageError, match='make_frame_tables'):
        check_samples(str(tmp_path))


def test_a_random_sample_has_the_sizes_of_the_config(cfg):
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


def test_cameras_of_a_random_sample_see_all_round(cfg):
    (sample,) = random_batch(cfg)['data_samples']
    azimuth = torch.arange(0, 360, 5) * torch.pi / 180
    ring = torch.stack([10 * azimuth.cos(), 10 * azimuth.sin(), 0 * azimuth], dim=1)
    cameras = torch.as_tensor(sample.lidar2img, dtype=torch.float32)
    seen = project(ring[None], cameras[None], (64, 176)).visible[0]
    assert seen.any(dim=0).all()
    assert seen[0, 0]  # the first looks along x
    assert (seen.sum(dim=0) <= 2).all()
