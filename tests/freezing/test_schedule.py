"""Simulated rates are those of a real run, and schedules that override multipliers are caught."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn
from toy_runner import make_runner

from projects.cmt_aqr.freezing import schedule
from projects.cmt_aqr.freezing.optimizer import StrictOptimWrapperConstructor  # noqa: F401
from projects.cmt_aqr.freezing.schedule import (
    BASE,
    RunLength,
    check_schedule,
    plan_rates,
    simulate,
)

LENGTH = RunLength(epoch_length=10, max_epochs=4)
CMT_LENGTH = RunLength(epoch_length=3517, max_epochs=20)


def group(name: str, lr_mult: float, base: float = 0.1) -> dict:
    return dict(name=name, lr=base * lr_mult, lr_mult=lr_mult)


GROUPS = [group('default', 1.0), group('neck', 0.05)]


def cosine(**options) -> dict:
    return dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=40, T_max=40, **options)


class Recorder(Hook):
    """Notes the rates that each iteration trains with."""

    def __init__(self) -> None:
        self.rates = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.rates.append([group['lr'] for group in runner.optim_wrapper.param_groups])


SCHEDULES = {
    'none': None,
    'by epoch': dict(type='MultiStepLR', milestones=[2, 3], gamma=0.5),
    'by iteration': dict(type='StepLR', by_epoch=False, step_size=3),
    'open end': dict(type='CosineAnnealingLR', eta_min_ratio=0.1),
    'converted': dict(type='CosineAnnealingLR', convert_to_iter_based=True, eta_min_ratio=0.1),
    'absolute': dict(type='CosineAnnealingLR', convert_to_iter_based=True, eta_min=0.02),
    'one cycle': dict(type='OneCycleLR', by_epoch=False, eta_max=0.3, total_steps=10),
    'restarts': dict(
        type='CosineRestartLR',
        by_epoch=False,
        periods=[4, 6],
        restart_weights=[1, 0.5],
        eta_min_ratio=0.1,
    ),
    'warm-up and overlap': [
        dict(type='LinearLR', by_epoch=False, start_factor=0.1, begin=0, end=4),
        dict(type='CosineAnnealingLR', T_max=5, convert_to_iter_based=True, eta_min_ratio=0.01),
        dict(type='ExponentialLR', by_epoch=True, gamma=0.9, begin=1, end=3),
        dict(type='CosineAnnealingMomentum', by_epoch=False, T_max=10, eta_min=0.8),
    ],
    'plateau': [
        dict(type='ReduceOnPlateauLR', monitor='count', rule='greater', patience=1, factor=0.5)
    ],
}


@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize(
    'length', [dict(max_epochs=5), dict(max_iters=10)], ids=['epochs', 'iterations']
)
def test_rates_are_those_of_a_run(tmp_path, monkeypatch, name, length):
    # mmengine waits two seconds when an endless loader starts again.
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    runner = make_runner(tmp_path)
    if 'max_iters' in length:
        runner._train_loop = dict(type='IterBasedTrainLoop', val_interval=2, **length)
    else:
        runner._train_loop = dict(by_epoch=True, **length)
    runner.optim_wrapper = dict(
        constructor='StrictOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=0.1, momentum=0.9),
        paramwise_cfg=dict(custom_keys={'line.bias': dict(lr_mult=0.5)}),
    )
    runner.param_schedulers = SCHEDULES[name]
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()

    groups = runner.optim_wrapper.optimizer.param_groups
    rates = simulate(groups, SCHEDULES[name], RunLength(epoch_length=2, **length))
    assert list(rates) == ['default', 'line.bias', BASE]
    np.testing.assert_allclose(np.stack([*rates.values()], axis=1), recorder.rates, rtol=1e-12)


def recipe(base: float) -> list[dict]:
    """The multipliers of the project's recipes."""
    return [group(str(lr_mult), lr_mult, base) for lr_mult in (1.0, 0.01, 0.05, 0.3, 0.5, 0.8)]


def own_schedule(repo_root: Path, name: str) -> Config:
    return Config.fromfile(repo_root / 'configs' / '_base_' / 'schedules' / f'{name}.py')


@pytest.mark.parametrize('name', ['cmt_20e', 'tiny'])
def test_own_schedules_keep_every_multiplier(repo_root, name):
    config = own_schedule(repo_root, name)
    groups = recipe(config.optim_wrapper.optimizer.lr)
    length = RunLength(epoch_length=150, max_epochs=config.max_epochs)
    rates, fault = check_schedule(groups, config.param_scheduler, length)
    assert fault is None
    for lr_mult in (0.01, 0.8):
        np.testing.assert_allclose(rates[str(lr_mult)], lr_mult * rates[BASE], rtol=1e-6)


def test_cmt_20e_at_full_length(repo_root):
    config = own_schedule(repo_root, 'cmt_20e')
    rates, _ = check_schedule(recipe(1.4e-4), config.param_scheduler, CMT_LENGTH)
    assert len(rates['0.05']) == 20 * 3517
    assert rates['0.05'][0] == pytest.approx(7e-6)
    assert rates['0.05'].max() == pytest.approx(4.2e-5, rel=1e-4)
    assert rates['0.05'][-1] == rates['0.05'].min() == pytest.approx(7e-10, rel=1e-3)
    assert np.argmax(rates['0.05']) == 8 * 3517 - 1


def test_cyclic_20e_of_mmdet3d_lifts_even_a_multiplier_of_zero():
    mmdet3d = Path(find_spec('mmdet3d').origin).parent
    config = Config.fromfile(mmdet3d / '.mim/configs/_base_/schedules/cyclic-20e.py')
    groups = [group('default', 1.0, 1e-4), group('still', 0.0, 1e-4)]
    length = RunLength(epoch_length=10, max_epochs=20)
    rates, fault = check_schedule(groups, config.param_scheduler, length)
    assert rates['still'][0] == 0
    assert rates['still'].max() == pytest.approx(1e-3, rel=1e-2)

    title, first, second = fault.splitlines()
    assert title == 'the schedule overrides the learning rates of parameter groups'
    assert first == (
        "param_scheduler[0], CosineAnnealingLR: group 'still' should get 0 times the base rate, "
        'but gets 1 times (0.001) in iteration 79; use eta_min_ratio=10 instead of eta_min=0.001'
    )
    assert second.startswith("param_scheduler[1], CosineAnnealingLR: group 'still'")
    assert second.endswith('use eta_min_ratio=0.0001 instead of eta_min=1e-08')


class TestCheck:
    @pytest.mark.parametrize(
        ('config', 'remedy'),
        [
            (cosine(eta_min=0.01), 'use eta_min_ratio=0.1 instead of eta_min=0.01'),
            (
                dict(type='CosineRestartLR', by_epoch=False, periods=[40], eta_min=0.01),
                'use eta_min_ratio=0.1 instead of eta_min=0.01',
            ),
            (
                dict(type='PolyLR', by_epoch=False, eta_min=0.01),
                'use eta_min=0 instead of eta_min=0.01, or CosineAnnealingLR with '
                'eta_min_ratio=0.1',
            ),
            (
                dict(type='OneCycleLR', by_epoch=False, eta_max=0.3),
                'use two CosineAnnealingLR with eta_min_ratio, one up and one down, as in '
                'configs/_base_/schedules/cmt_20e.py',
            ),
            (
                dict(type='ReduceOnPlateauLR', patience=0, min_value=0.04),
                'use min_value=0 and eps=0',
            ),
            (
                dict(type='CosineAnnealingParamScheduler', param_name='lr', eta_min=0.01),
                'use eta_min_ratio=0.1 instead of eta_min=0.01',
            ),
        ],
        ids=lambda value: value['type'] if isinstance(value, dict) else '',
    )
    def test_schedulers_that_override(self, config, remedy):
        _, fault = check_schedule(GROUPS, config, LENGTH)
        expected = f"param_scheduler[0], {config['type']}: group 'neck' should get 0.05 times the"
        assert expected in fault
        assert fault.endswith(remedy)

    @pytest.mark.parametrize(
        'config',
        [
            None,
            cosine(),  # to 0, where no ratio is left
            cosine(eta_min_ratio=6),
            dict(type='CosineAnnealingLR', T_max=1, eta_min=0, by_epoch=True),  # 0 at once
            dict(type='PolyLR', by_epoch=False),
            dict(type='MultiStepLR', milestones=[1, 2]),
            dict(type='LinearLR', by_epoch=False, start_factor=0.001, end=10),
            dict(type='ConstantLR', factor=0.5, end=2),
            dict(type='ReduceOnPlateauLR', patience=0),
            dict(type='CosineAnnealingMomentum', by_epoch=False, T_max=40, eta_min=0.85),
        ],
    )
    def test_schedulers_that_do_not(self, config):
        assert check_schedule(GROUPS, config, LENGTH)[1] is None

    def test_only_the_culprit_is_named(self):
        good = dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=10)
        _, fault = check_schedule(GROUPS, [good, cosine(eta_min=0.01)], LENGTH)
        assert 'param_scheduler[0]' not in fault
        assert 'param_scheduler[1], CosineAnnealingLR' in fault

    def test_a_single_group_is_measured_against_the_base_rate(self):
        _, fault = check_schedule([group('neck', 0.05)], cosine(eta_min=0.01), LENGTH)
        assert "group 'neck' should get 0.05 times" in fault

    def test_groups_without_multipliers_keep_their_proportions(self):
        groups = [dict(lr=0.1), dict(lr=0.01)]
        assert check_schedule(groups, cosine(eta_min_ratio=0.1), LENGTH)[1] is None
        _, fault = check_schedule(groups, cosine(eta_min=0.001), LENGTH)
        assert "group 'group 1' should get 0.1 times" in fault

    def test_it_finds_the_same_once_schedulers_were_built(self):
        """A OneCycleLR leaves nothing but ``lr_mult`` of the rates it overrides."""
        built = [dict(g, lr=0.012, initial_lr=0.012) for g in GROUPS]
        one_cycle = dict(type='OneCycleLR', by_epoch=False, eta_max=0.3)
        assert "group 'neck' should get 0.05 times" in check_schedule(built, one_cycle, LENGTH)[1]

    def test_it_changes_neither_groups_nor_config(self):
        groups, config = [dict(g) for g in GROUPS], cosine(eta_min_ratio=0.1)
        check_schedule(groups, config, LENGTH)
        assert groups == GROUPS
        assert config == cosine(eta_min_ratio=0.1)


def test_groups_of_the_same_rate_are_simulated_once(monkeypatch):
    """mmengine's own constructor makes a group of every parameter."""
    stand_in, built = schedule._stand_in, []
    monkeypatch.setattr(schedule, '_stand_in', lambda *args: built.append(args) or stand_in(*args))
    groups = [dict(lr=0.1 * (1.0, 0.01, 0.1)[index % 3]) for index in range(600)]
    rates, _ = check_schedule(groups, cosine(eta_min_ratio=0.1), LENGTH)
    assert len(rates) == 601
    np.testing.assert_allclose(rates['group 598'], 0.01 * rates[BASE], rtol=1e-6)
    assert [len(distinct) for distinct, _ in built] == [3]


def test_every_parameter_gets_the_rates_of_its_group():
    weight, bias = nn.Linear(1, 1).parameters()
    groups = [
        dict(params=[weight], name='weight', lr=0.1, lr_mult=1.0),
        dict(params=[bias], name='bias', lr=0.05, lr_mult=0.5),
    ]
    rates, fault = plan_rates(groups, cosine(eta_min_ratio=0.1), LENGTH)
    assert set(rates) == {id(weight), id(bias)}
    assert rates[id(bias)].start == pytest.approx(0.05)
    assert rates[id(bias)].end == pytest.approx(0.005, rel=0.05)
    assert fault is None


def test_names_must_differ():
    with pytest.raises(ValueError, match=r"duplicated: \['neck'\]"):
        simulate([*GROUPS, group('neck', 0.5)], None, LENGTH)


def test_built_schedulers_cannot_be_simulated():
    with pytest.raises(TypeError, match='give the config of a scheduler'):
        simulate(GROUPS, [object()], LENGTH)


def test_no_base_rate():
    with pytest.raises(ValueError, match='every parameter group has a learning rate of 0'):
        simulate([group('still', 0.0)], None, LENGTH)
