"""The sample that all sides share, and the refusal of what does not exist."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from benchmarks import workload
from projects.cmt_aqr.doctor.random_sample import random_batch
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
        batches.append(workload.first_batch(cfg, str(synthetic_root)))
    assert same(*batches)
    (cloud,), (images,) = (batches[0]['inputs'][key] for key in ('points', 'img'))
    assert len(cloud) > 1000
    assert images.shape == (6, 3, 64, 176)
    assert images.float().std() > 10
    assert len(batches[0]['data_samples'][0].gt_instances_3d) > 0


def test_images_come_in_another_size_if_asked(cfg, synthetic_root):
    workload.resize_images(cfg, (32, 96))
    for batch in (workload.first_batch(cfg, str(synthetic_root)), random_batch(cfg, num_points=10)):
        assert batch['inputs']['img'][0].shape == (6, 3, 32, 96)


def arguments(**changes):
    return argparse.Namespace(**{'frame': 'none', 'synthetic': False, **changes})


def test_a_folder_without_info_files_has_no_sample(tmp_path, synthetic_root):
    assert workload.check([], arguments(frame=str(synthetic_root))) == str(synthetic_root)
    assert workload.check([], arguments(synthetic=True)) is None
    with pytest.raises(UsageError, match=r'nuscenes_infos_train\.pkl does not exist.*--synthetic'):
        workload.check([], arguments(frame=str(tmp_path)))


def test_a_missing_config_is_named():
    with pytest.raises(UsageError, match=r'config none\.py does not exist'):
        workload.check([Path('none.py')], arguments(synthetic=True))


def test_weights_that_do_not_exist_yet_cost_nothing(repo_root):
    config = repo_root / 'configs/cmt/cmt_tiny_streets_experts.py'
    cfg, model, _ = workload.Workload(config).build()
    assert not Path(cfg.model.experts.lidar).exists()
    assert set(model.experts) == {'lidar', 'camera'}
