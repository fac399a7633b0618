"""Checkpoints are checked before data is read."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from toy_runner import make_runner

from projects.cmt_aqr.cli.checkpoints import (
    check_checkpoint,
    check_fit,
    check_initial_weights,
    read_checkpoint,
    resume_from,
)
from projects.cmt_aqr.hooks import RunInfoHook
from projects.cmt_aqr.usage_error import UsageError


def config(work_dir, **changes: object) -> Config:
    settings = dict(
        work_dir=str(work_dir),
        launcher='none',
        train_cfg=dict(max_epochs=2),
        train_dataloader=dict(batch_size=4),
        optim_wrapper={},
        param_scheduler=[dict(type='LinearLR')],
    )
    cfg = Config(settings)
    cfg.merge_from_dict(changes)
    return cfg


@pytest.fixture
def saved(tmp_path):
    """The latest checkpoint of a run of two epochs in batches of four, by one process."""
    schedule = {
        'max_epochs': 2, 'batch_size x processes': 4, 'accumulative_counts': 1,
        'precision': 'float32',
    }  # fmt: skip
    path = tmp_path / 'epoch_1.pth'
    meta = dict(schedule=schedule, seed=7, epoch=1, iter=5, steps_per_epoch=5)
    torch.save(dict(state_dict={}, optimizer={}, meta=meta), path)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    return path


def resumed(cfg: Config, given: str = 'auto') -> str:
    resume_from(cfg, given)
    assert cfg.resume
    return cfg.load_from


def test_the_latest_checkpoint_of_the_same_schedule_is_resumed(saved, tmp_path, monkeypatch):
    assert resumed(config(tmp_path)) == str(saved)
    assert resumed(config(tmp_path), str(saved)) == str(saved)
    # Two processes with half of the batch each have as many steps.
    monkeypatch.setenv('WORLD_SIZE', '2')
    halved = config(tmp_path, **{'train_dataloader.batch_size': 2, 'launcher': 'pytorch'})
    assert resumed(halved) == str(saved)
    with pytest.raises(UsageError, match='batch_size x processes is 8 and was 4; set it back'):
        resumed(config(tmp_path, launcher='pytorch'))


def test_without_a_schedule_a_run_may_be_prolonged(saved, tmp_path):
    changes = {'train_cfg.max_epochs': 9, 'param_scheduler': None}
    assert resumed(config(tmp_path, **changes)) == str(saved)
    del changes['param_scheduler']
    with pytest.raises(UsageError, match='max_epochs is 9 and was 2'):
        resumed(config(tmp_path, **changes))


@pytest.mark.parametrize(
    ('wrapper', 'precision'),
    [
        (dict(type='AmpOptimWrapper'), 'float16'),
        (dict(type='AmpOptimWrapper', dtype='bfloat16'), 'bfloat16'),
    ],
)
def test_another_precision_is_refused(saved, tmp_path, wrapper, precision):
    with pytest.raises(UsageError, match=f'precision is {precision} and was float32; set it back'):
        resumed(config(tmp_path, optim_wrapper=wrapper))


def test_the_seed_is_that_of_the_run_unless_one_is_given(saved, tmp_path):
    cfg = config(tmp_path)
    resume_from(cfg, 'auto')
    assert cfg.randomness.seed == 7
    cfg = config(tmp_path, randomness=dict(seed=3))
    resume_from(cfg, 'auto')
    assert cfg.randomness.seed == 3


def test_a_checkpoint_within_an_epoch_is_refused(saved, tmp_path):
    content = torch.load(saved, weights_only=True)
    content['meta'].update(iter=8)
    torch.save(content, saved)
    with pytest.raises(UsageError, match='is from step 3 of the 5 of epoch 2, of which it would'):
        resumed(config(tmp_path))


def test_a_run_stores_its_schedule(tmp_path):
    cfg = config(tmp_path, **{'optim_wrapper.accumulative_counts': 3})
    runner = make_runner(tmp_path, custom_hooks=[RunInfoHook()], cfg=cfg)
    runner.train()
    meta = read_checkpoint(str(tmp_path / 'epoch_1.pth'))['meta']
    assert meta['schedule'] == {
        'max_epochs': 2, 'batch_size x processes': 4, 'accumulative_counts': 3,
        'precision': 'float32',
    }  # fmt: skip
    assert meta['iter'] == meta['epoch'] * meta['steps_per_epoch'] > 0


@pytest.fixture
def runner(tmp_path) -> Runner:
    return make_runner(tmp_path / 'run', load_from=str(tmp_path / 'some.pth'))


def save(tmp_path, **tensors: torch.Tensor) -> None:
    state = {f'line.{name}': value for name, value in tensors.items()}
    torch.save(dict(state_dict=state), tmp_path / 'some.pth')


def test_weights_that_fit_are_loaded(runner, tmp_path):
    save(tmp_path, weight=torch.full((1, 1), 3.0), bias=torch.ones(1))
    check_fit(runner, complete=True, allow_mismatch=False)
    assert runner.model.line.weight.item() == 3
    save(tmp_path, bias=torch.ones(1), other=torch.ones(1))
    check_fit(runner, complete=False, allow_mismatch=False)
    with pytest.raises(UsageError, match=r'missing: line\.weight; unexpected: line\.other; use'):
        check_fit(runner, complete=True, allow_mismatch=False)
    check_fit(runner, complete=True, allow_mismatch=True)


def test_other_shapes_and_other_names_are_refused(runner, tmp_path):
    save(tmp_path, weight=torch.ones(3, 1), bias=torch.ones(1))
    message = 'other shapes: line.weight is [3, 1] and must be [1, 1]; use'
    with pytest.raises(UsageError, match=re.escape(message)):
        check_fit(runner, complete=False, allow_mismatch=False)
    save(tmp_path, other=torch.ones(1))
    with pytest.raises(UsageError, match=r'missing: line\.weight, line\.bias; unexpected'):
        check_fit(runner, complete=False, allow_mismatch=False)


def test_a_missing_checkpoint_is_named_with_the_nearest_one(tmp_path):
    check_checkpoint('https://example.com/weights.pth')
    torch.save({}, tmp_path / 'epoch_1.pth')
    with pytest.raises(UsageError, match=r'epoch_2\.pth does not exist; did you mean .*epoch_1'):
        check_checkpoint(str(tmp_path / 'epoch_2.pth'))
    with pytest.raises(UsageError, match=r'checkpoint zzz\.pth does not exist \(in '):
        check_checkpoint('zzz.pth')
    check_checkpoint(str(tmp_path / 'epoch_1.pth'))


def test_missing_initial_weights_are_named_with_their_setting(tmp_path):
    torch.save({}, tmp_path / 'here.pth')
    part = dict(init_cfg=[dict(type='Pretrained', checkpoint=str(tmp_path / 'here.pth'))])
    experts = dict(lidar=None, camera='none.pth')
    check_initial_weights(Config(dict(model=dict(type='CmtDetector', experts=experts, part=part))))
    expert = dict(type='ExpertDetector', experts=experts, part=part)
    with pytest.raises(UsageError, match=r'^model\.experts\.camera: checkpoint none\.pth does not'):
        check_initial_weights(Config(dict(model=expert)))
    part['init_cfg'][0]['checkpoint'] = 'zzz.pth'
    with pytest.raises(UsageError, match=r'^model\.part\.init_cfg\.0\.checkpoint: checkpoint zzz'):
        check_initial_weights(Config(dict(model=dict(type='CmtDetector', part=part))))


def test_a_file_of_torch_before_1_6_is_read(tmp_path):
    path = tmp_path / 'old.pth'
    torch.save({'x': torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(str(path))['x'].tolist() == [1, 1]


def test_pretrained_parts_without_a_name_in_common_are_refused(runner, tmp_path):
    runner._load_from = None
    save(tmp_path, gamma=torch.ones(1))
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'some.pth'))
    runner.model.line.init_cfg = init
    with pytest.raises(UsageError, match=r'does not fit line: missing: weight, bias; unexpected'):
        check_fit(runner, complete=False, allow_mismatch=False)
    torch.save(dict(bias=torch.ones(1), fc=torch.ones(1)), init['checkpoint'])
    check_fit(runner, complete=False, allow_mismatch=False)
