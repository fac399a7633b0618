"""Options of the tools that change a config."""

import pytest
import torch
from mmengine.config import Config, ConfigDict

from projects.cmt_aqr.cli import config_changes
from projects.cmt_aqr.cli.config_changes import (
    DROPS,
    add_failure,
    find_failure,
    use_mixed_precision,
)
from projects.cmt_aqr.datasets import failures
from projects.cmt_aqr.usage_error import UsageError


@pytest.mark.parametrize(
    ('name', 'failure'),
    [
        (DROPS['lidar'], dict(type='LidarDrop', severity=1, seed=0)),
        (DROPS['camera'], dict(type='CameraDrop', severity=1, seed=0)),
        ('fog_2', dict(type='Fog', severity=2, seed=0)),
        ('fog', dict(type='Fog', severity=1, seed=0)),
    ],
)
def test_failures_have_the_names_of_the_robustness_test(repo_root, name, failure):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    assert find_failure(cfg, name) == failure


def test_an_unknown_failure_is_named_with_the_nearest(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    with pytest.raises(UsageError, match=r'--failure fog_4: .*did you mean fog_\d'):
        find_failure(cfg, 'fog_4')


@pytest.mark.parametrize(
    ('config', 'failure', 'loader'),
    [
        ('cmt_lidar_voxel0075_cbgs', 'CameraDrop', 'LoadMultiViewImage'),
        ('cmt_lidar_voxel0075_cbgs', 'KnockedCamera', 'LoadMultiViewImage'),
        ('cmt_camera_vov_1600x640_cbgs', 'PointsDrop', 'LoadPoints'),
    ],
)
def test_a_sensor_that_is_not_loaded_cannot_fail(repo_root, config, failure, loader):
    cfg = Config.fromfile(repo_root / f'configs/cmt/{config}.py')
    with pytest.raises(UsageError, match=rf'{failure}: .*cbgs\.py has no {loader}…, whose data'):
        add_failure(cfg, dict(type=failure))
    add_failure(cfg, dict(type='Fog'))


def test_a_failure_needs_no_data_root(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    cfg.test_dataloader.dataset.pop('data_root')
    cfg.test_dataloader.dataset.ann_file = '/d/infos.pkl'
    assert find_failure(cfg, 'stale_frame_1')['ann_file'] == '/d/infos.pkl'


def test_a_failure_stands_before_everything_else(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    before = list(cfg.test_dataloader.dataset.pipeline)
    add_failure(cfg, dict(type='LidarDrop'))
    add_failure(cfg, dict(type='Fog', severity=2))
    after = cfg.test_dataloader.dataset.pipeline
    assert after == [dict(type='Fog', severity=2), dict(type='LidarDrop'), *before]


@pytest.mark.parametrize('nested', [False, True])
def test_loaders_that_apply_no_failure_are_named_with_those_that_do(repo_root, nested):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    loader = ConfigDict(type='LoadPointsFromMultiSweeps', sweeps_num=3)
    if nested:
        loader = ConfigDict(type='Other', transforms=[loader])
    cfg.test_dataloader.dataset.pipeline[1] = loader
    with pytest.raises(
        UsageError,
        match=r'LidarDrop: .*that apply no failure; .*: LoadPointsOfSweeps for LoadPointsFromMulti',
    ):
        add_failure(cfg, dict(type='LidarDrop'))


def config_of_wrapper(**wrapper: object) -> Config:
    return Config(dict(optim_wrapper=dict(type='OptimWrapper', clip_grad=None, **wrapper)))


@pytest.mark.parametrize(
    ('has_gpu', 'given', 'expected'),
    [
        (True, {}, dict(type='AmpOptimWrapper', loss_scale='dynamic')),
        (
            True,
            dict(dtype='bfloat16', loss_scale=512.0),
            dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=512.0),
        ),
        (False, {}, dict(type='BFloat16OptimWrapper')),
        (False, dict(dtype='bfloat16', loss_scale=512.0), dict(type='BFloat16OptimWrapper')),
    ],
)
def test_mixed_precision_by_machine(monkeypatch, has_gpu, given, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: has_gpu)
    cfg = config_of_wrapper(**given)
    use_mixed_precision(cfg)
    assert cfg.optim_wrapper == dict(expected, clip_grad=None)


def test_mixed_precision_that_cannot_be_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UsageError, match='--amp in float16 needs a GPU; on a CPU'):
        use_mixed_precision(config_of_wrapper(dtype='float16'))
    cfg = Config(dict(optim_wrapper=dict(type='ApexOptimWrapper')))
    with pytest.raises(UsageError, match='OptimWrapper, not ApexOptimWrapper'):
        use_mixed_precision(cfg)


def test_each_failure_of_one_sensor_is_refused_without_it():
    """All but those of both sensors, and of a sensor that an option chooses."""
    known = {
        name
        for name, kind in vars(failures).items()
        if isinstance(kind, type) and issubclass(kind, failures.SensorFailure)
    }
    listed = [name for names in config_changes._FAILURES_OF.values() for name in names]
    assert sorted(listed) == sorted(known - {'SensorFailure', 'Fog', 'StaleFrame'})
