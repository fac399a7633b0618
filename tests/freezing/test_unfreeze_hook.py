"""Each phase of a schedule trains what it says, and a run resumed in it ends with the same bits."""

import gc
import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from freezable import names_below, trainable
from mmdet3d.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from toy_runner import make_runner

from projects.cmt_aqr.freezing import (
    FreezeAuditHook,
    FreezePolicy,
    UnfreezeScheduleHook,
    freeze,
)
from projects.cmt_aqr.freezing.audit import FreezeViolation, Kind
from projects.cmt_aqr.freezing.schedule import RunLength, simulate
from projects.cmt_aqr.process_group import leave_process_group


class ResNet(nn.Sequential):
    """Named as one whose layers are known: a stem and three layers, with norms or without."""

    def __init__(self, *, norm: type[nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.conv1 = nn.Linear(1, 4)
        for name in ('layer1', 'layer2', 'layer3'):
            self.add_module(name, nn.Sequential(nn.Linear(4, 4), norm(4), nn.Tanh()))


class Detector(BaseModel):
    """An encoder to freeze by schedule, a second one, and a head."""

    def __init__(self, *, norm: type[nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.img_backbone = ResNet(norm=norm)
        self.pts_backbone = ResNet(norm=norm)
        self.line = nn.Linear(4, 1)

    def forward(self, inputs: torch.Tensor, data_samples: torch.Tensor, mode: str = 'tensor'):
        prediction = self.line(self.img_backbone(inputs) + self.pts_backbone(inputs))
        if mode == 'loss':
            return dict(loss_line=((prediction - data_samples) ** 2).mean())
        return [*prediction]


# Frozen, the last layer, all but the stem, the last two layers but one norm, all.
SCHEDULE = {
    0: dict(frozen=True),
    1: 1,
    3: dict(unfreeze_layers=[-1, -2], always_trainable=['layer1.1']),
    4: dict(unfreeze_layers=[0]),
    5: {},
}
EPOCHS = 6
STEM, LAYER1, LAYER2, LAYER3 = ('conv1',), ('layer1',), ('layer2',), ('layer3',)
TRAINED = [
    (),
    LAYER3,
    LAYER3,
    (*LAYER3, *LAYER2, 'layer1.1'),
    LAYER1,
    (*STEM, *LAYER1, *LAYER2, *LAYER3),
]
CUSTOM_KEYS = {'img_backbone': dict(lr_mult=0.1), 'img_backbone.layer3': dict(lr_mult=0.5)}
SCHEDULERS = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='CosineAnnealingLR', T_max=EPOCHS, eta_min_ratio=0.01, convert_to_iter_based=True),
]


def schedule_hook(
    schedule: Mapping = SCHEDULE, module: str = 'img_backbone'
) -> UnfreezeScheduleHook:
    return UnfreezeScheduleHook(module=module, schedule=schedule)


def make(
    work_dir: Path,
    *hooks: Hook,
    model: nn.Module | None = None,
    epochs: int = EPOCHS,
    **options,
) -> Runner:
    """Runner of two iterations an epoch, with momentum, decay, clipping and a moving rate."""
    torch.manual_seed(0)
    runner = make_runner(
        work_dir,
        model=model or Detector(),
        epochs=epochs,
        custom_hooks=[*(hooks or [schedule_hook()])],
        **options,
    )
    runner.optim_wrapper = dict(
        constructor='StrictOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=0.02, weight_decay=0.1),
        paramwise_cfg=dict(custom_keys=CUSTOM_KEYS),
        clip_grad=dict(max_norm=1.0),
    )
    runner.param_schedulers = SCHEDULERS
    return runner


def in_optimizer(runner: Runner, model: nn.Module) -> dict[str, set[str]]:
    """Names of the parameters in each group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        group['name']: {names[id(parameter)] for parameter in group['params']}
        for group in runner.optim_wrapper.optimizer.param_groups
    }


def below_encoder(runner: Runner, *roots: str) -> set[str]:
    return names_below(runner.model, *(f'img_backbone.{root}' for root in roots))


class EachEpoch(Hook):
    """Calls a function at the end of each epoch and keeps what it returns."""

    priority = 'LOWEST'

    def __init__(self, look) -> None:
        self.look = look
        self.seen = []

    def after_train_epoch(self, runner: Runner) -> None:
        self.seen.append(self.look(runner))


def state_of(runner: Runner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}


# What trains.


def test_each_phase_trains_optimizes_and_changes_what_it_says(tmp_path):
    trains = EachEpoch(lambda runner: trainable(runner.model.img_backbone))
    groups = EachEpoch(lambda runner: in_optimizer(runner, runner.model))
    states = EachEpoch(state_of)
    runner = make(tmp_path, schedule_hook(), trains, groups, states)
    states.seen.append(state_of(runner))
    runner.train()
    for epoch, roots in enumerate(TRAINED):
        expected = names_below(runner.model.img_backbone, *roots)
        assert trains.seen[epoch] == expected
        in_encoder = {f'img_backbone.{name}' for name in expected}
        layer3 = in_encoder & below_encoder(runner, 'layer3')
        assert groups.seen[epoch] == {
            'default': names_below(runner.model, 'pts_backbone', 'line'),
            'img_backbone': in_encoder - layer3,
            'img_backbone.layer3': layer3,
        }
        before, after = states.seen[epoch : epoch + 2]
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        prefixes = tuple(f'img_backbone.{root}.' for root in roots)
        others = ('pts_backbone.', 'line.')
        assert moved == {name for name in after if name.startswith((*prefixes, *others))}


def test_rates_are_those_of_groups_that_were_there_from_the_start(tmp_path):
    class Recorder(Hook):
        rates = []

        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            self.rates.append(runner.optim_wrapper.get_lr()['lr'])

    recorder = Recorder()
    runner = make(tmp_path, schedule_hook(), recorder)
    runner.train()
    length = RunLength(epoch_length=2, max_epochs=EPOCHS)
    due = simulate(runner.optim_wrapper.optimizer.param_groups, SCHEDULERS, length)
    for index, (name, multiplier) in enumerate(
        {'default': 1, 'img_backbone': 0.1, 'img_backbone.layer3': 0.5}.items()
    ):
        found = [rates[index] for rates in recorder.rates]
        assert found == pytest.approx(due[name], rel=1e-12)
        assert found == pytest.approx(multiplier * due['default'], rel=1e-6)


TWO_SCHEDULES = (
    ({0: {}, 1: 2}, 'img_backbone'),
    ({0: 1, 1: {}, 2: dict(frozen=True), 3: 1}, 'pts_backbone'),
)


def test_several_modules_each_by_its_schedule(tmp_path):
    hooks = [schedule_hook(*schedule) for schedule in TWO_SCHEDULES]
    trains = EachEpoch(lambda runner: trainable(runner.model))
    groups = EachEpoch(lambda runner: set().union(*in_optimizer(runner, runner.model).values()))
    audit = FreezeAuditHook(allow_unfilled=['pts_backbone'])
    runner = make(tmp_path, audit, *hooks, trains, groups, epochs=4)
    runner.train()
    last_two = below_encoder(runner, 'layer2', 'layer3')
    layer3 = names_below(runner.model, 'pts_backbone.layer3')
    head = names_below(runner.model, 'line')
    assert trains.seen == [
        names_below(runner.model, 'img_backbone') | layer3 | head,
        last_two | names_below(runner.model, 'pts_backbone') | head,
        last_two | head,
        last_two | layer3 | head,
    ]
    assert groups.seen == trains.seen


def test_norm_eval_of_the_config_holds_in_all_phases(tmp_path):
    model = Detector()
    freeze(model.img_backbone, FreezePolicy(norm_eval=True))
    states = EachEpoch(state_of)
    make(tmp_path, schedule_hook({0: 1, 1: {}}), states, model=model, epochs=2).train()
    mean = 'img_backbone.layer3.1.running_mean'
    assert all(torch.equal(state[mean], torch.zeros(4)) for state in states.seen)


def test_what_the_config_freezes_may_stay_frozen(tmp_path):
    model = Detector()
    freeze(model.img_backbone, FreezePolicy(frozen_stages=1))
    runner = make(tmp_path, schedule_hook({0: 1, 1: 2}), model=model, epochs=2)
    runner.train()
    assert trainable(model) - names_below(model, 'pts_backbone', 'line') == below_encoder(
        runner, 'layer2', 'layer3'
    )


# Resuming.


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory) -> Runner:
    runner = make(tmp_path_factory.mktemp('whole'))
    runner.train()
    return runner


@pytest.mark.parametrize('epoch', range(1, EPOCHS))
def test_resumed_after_any_epoch_it_ends_with_the_same_bits(tmp_path, whole_run, epoch):
    checkpoint = Path(whole_run.work_dir) / f'epoch_{epoch}.pth'
    runner = make(tmp_path, resume=True, load_from=str(checkpoint))
    with torch.no_grad():  # weights from elsewhere than the checkpoint would show
        runner.model.line.weight.zero_()
    runner.train()
    assert_same_end(runner, whole_run)


def assert_same_end(runner: Runner, whole_run: Runner) -> None:
    """The same weights, statistics, rates and state of the optimizer, bit for bit."""
    assert runner.iter == whole_run.iter
    found, due = runner.model.state_dict(), whole_run.model.state_dict()
    assert all(torch.equal(found[name], due[name]) for name in due)
    found, due = runner.optim_wrapper.state_dict(), whole_run.optim_wrapper.state_dict()
    assert found['param_groups'] == due['param_groups']
    assert found['state'].keys() == due['state'].keys()
    for index, state in due['state'].items():
        assert all(torch.equal(found['state'][index][key], value) for key, value in state.items())


# The audit.


def test_audit_follows_the_schedule(tmp_path):
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=Detector().state_dict()), weights)
    audit = FreezeAuditHook()
    runner = make(tmp_path / 'run', audit, schedule_hook(), load_from=str(weights))
    runner.train()
    report = json.loads((Path(runner.log_dir) / 'freeze_audit.json').read_text())
    assert report['state'] == 'passed'
    assert report['rebased_at_iteration'] == [2, 6, 8, 10]
    assert report['frozen_parameters'] == 0


def test_audit_requires_a_checkpoint_for_the_frozen_parts_of_the_first_phase(tmp_path):
    with pytest.raises(FreezeViolation) as error:
        make(tmp_path, FreezeAuditHook(), schedule_hook({0: 1, 1: {}})).train()
    (violation,) = error.value.violations
    assert violation.kind is Kind.UNFILLED
    assert {name.rsplit('.', 1)[0] for name in violation.names} == {
        f'img_backbone.{name}' for name in ('conv1', 'layer1.0', 'layer1.1', 'layer2.0', 'layer2.1')
    }


def test_audit_allows_other_averages_of_previously_trained_tensors(tmp_path):
    def run(work_dir: str, **options) -> dict:
        hooks = EMAHook(momentum=0.5, update_buffers=True), FreezeAuditHook(), schedule
        runner = make(tmp_path / work_dir, *hooks, epochs=4, **options)
        runner.train()
        return json.loads((Path(runner.log_dir) / 'freeze_audit.json').read_text())

    schedule = schedule_hook({0: {}, 1: 1, 2: dict(frozen=True)})
    assert run('whole')['state'] == 'passed'
    checkpoint = str(tmp_path / 'whole' / 'epoch_3.pth')
    assert run('resumed', resume=True, load_from=checkpoint)['state'] == 'passed'


def test_audit_finds_other_averages_of_never_trained_tensors(tmp_path):
    ema = EMAHook(momentum=0.5)

    class Change(Hook):
        def before_train_epoch(self, runner: Runner) -> None:
            if runner.epoch == 2:
                ema.ema_model.module.img_backbone.conv1.weight.data.zero_()

    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=Detector().state_dict()), weights)
    hooks = ema, FreezeAuditHook(), schedule_hook({0: 2, 1: 1}), Change()
    runner = make(tmp_path / 'run', *hooks, epochs=4, load_from=str(weights))
    with pytest.raises(FreezeViolation) as error:
        runner.train()
    (violation,) = error.value.violations
    assert violation.kind is Kind.AVERAGE_DIFFERS
    assert violation.names == ('img_backbone.conv1.weight',)


# Settings that are refused before the first step.


@pytest.mark.parametrize(
    ('schedule', 'message'),
    [
        ([1, 2], r'schedule is \[1, 2\]; it must be a dict of phases by epoch'),
        ({0: {}, 1.5: {}}, 'schedule has epoch 1.5; it must be an integer, 0 or greater'),
        ({0: {}, '3': {}}, "schedule has epoch '3'; it must be an integer, 0 or greater"),
        ({0: {}, True: {}}, 'schedule has epoch True; it must be an integer'),
        ({0: {}, -1: {}}, 'schedule has epoch -1; it must be an integer'),
        ({2: {}, 1: {}}, r'schedule has epochs \[1, 2\]; it must include epoch 0'),
        ({}, r'schedule has epochs \[\]; it must include epoch 0'),
        ({0: -1}, r'schedule\[0\] is -1; it must be a number of layers or a dict of settings'),
        ({0: [1]}, r'schedule\[0\] is \[1\]; it must be a number of layers or a dict'),
        (
            {0: dict(unfreeze=[1])},
            r"schedule\[0\] has unknown settings \['unfreeze'\]; allowed: unfreeze_layers, fr",
        ),
    ],
)
def test_invalid_schedules(schedule, message):
    with pytest.raises(ValueError, match=f'UnfreezeScheduleHook of img_backbone: {message}'):
        schedule_hook(schedule)


@pytest.mark.parametrize(
    ('schedule', 'message'),
    [
        (
            {0: {}, 6: {}},
            'UnfreezeScheduleHook of img_backbone: schedule has epoch 6, but the run ends after '
            'max_epochs 6; allowed are 0 to 5',
        ),
        (
            {0: {}, 5: 4},
            r'UnfreezeScheduleHook, epoch 5: img_backbone \(ResNet\): unfreeze_layers -4 out of '
            'range: it has 3 layers',
        ),
        (
            {0: {}, 5: dict(freeze_ratio=1.5)},
            r'UnfreezeScheduleHook, epoch 5: img_backbone \(ResNet\): freeze_ratio 1.5 must be',
        ),
        (
            {0: dict(frozen=True), 5: dict(frozen_stages=3, norm_eval=True, frozen=True)},
            'UnfreezeScheduleHook: no phase trains any part of img_backbone',
        ),
    ],
)
def test_phases_that_do_not_fit_stop_the_run_before_its_first_step(tmp_path, schedule, message):
    runner = make(tmp_path, schedule_hook(schedule))
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert runner.iter == 0


def test_unknown_module(tmp_path):
    runner = make(tmp_path, schedule_hook(module='img_backbonne'))
    with pytest.raises(
        ValueError,
        match="module 'img_backbonne' is not in Detector, which contains data_preprocessor, "
        'img_backbone, pts_backbone, line',
    ):
        runner.train()


def test_what_the_config_freezes_cannot_be_trained_by_the_schedule(tmp_path):
    model = Detector()
    freeze(model.img_backbone, FreezePolicy(frozen_stages=1))
    runner = make(tmp_path, schedule_hook({0: 1, 4: {}}), model=model)
    with pytest.raises(ValueError, match='epoch 4: 6 parameters to train are') as error:
        runner.train()
    assert 'not in the optimizer, for example img_backbone.conv1.weight' in str(error.value)
    assert 'freeze img_backbone by the schedule alone' in str(error.value)
    with pytest.raises(ValueError, match='epoch 4: 6 parameters to train are'):  # without a run too
        schedule_hook({0: 1, 4: {}}).begin_first_phase(model, runner.optim_wrapper)


@pytest.mark.parametrize('module', ['img_backbone', 'img_backbone.layer1'])
def test_one_schedule_a_module(tmp_path, module):
    other = schedule_hook({0: {}}, module)
    with pytest.raises(ValueError, match=f'img_backbone: {module} has a second schedule'):
        make(tmp_path, schedule_hook({0: {}}), other).train()


def test_a_run_by_iterations_has_no_epochs(tmp_path):
    runner = make(tmp_path)
    runner._train_loop = dict(type='IterBasedTrainLoop', max_iters=4)
    with pytest.raises(ValueError, match='counts epochs, but the run has only iterations'):
        runner.train()


def test_several_optimizers(tmp_path):
    runner = make(tmp_path)
    wrapper = OptimWrapper(torch.optim.SGD(runner.model.parameters(), lr=0.1))
    runner.optim_wrapper = OptimWrapperDict(all=wrapper)
    runner.param_schedulers = None
    with pytest.raises(ValueError, match='needs a single optimizer, not an OptimWrapperDict'):
        runner.train()


def test_a_config_with_a_schedule_can_be_dumped_and_read(tmp_path):
    hook = dict(type='UnfreezeScheduleHook', module='img_backbone', schedule=SCHEDULE)
    config = Config(dict(custom_hooks=[hook]))
    config.dump(tmp_path / 'config.py')
    (read,) = Config.fromfile(tmp_path / 'config.py').custom_hooks
    assert read.schedule == SCHEDULE
    built = HOOKS.build(read)
    assert built.policies == schedule_hook().policies


# Several processes.


def detector_without_norms() -> Detector:
    torch.manual_seed(0)
    return Detector(norm=nn.Identity)


def train_on_rank(rank: int, folder: Path) -> None:
    """Train with DDP on half of each batch, then resume; keep weights and what was wrapped."""
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / 'store'), 2)
    torch.distributed.init_process_group('gloo', store=store, rank=rank, world_size=2)
    wrappers = EachEpoch(lambda runner: weakref.ref(runner.model))
    compiled = []

    def train(work_dir: str, **options) -> Runner:
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None, bucket_cap_mb=3)
        runner = make(
            folder / work_dir,
            schedule_hook(),
            wrappers,
            FreezeAuditHook(allow_unfilled=['img_backbone']),
            model=detector_without_norms(),
            launcher='pytorch',
            cfg=dict(model_wrapper_cfg=wrapper),
            **options,
        )
        runner._maybe_compile = compiled.append
        runner.train()
        return runner

    whole = train('whole')
    gc.collect()
    alive = [ref() is not None for ref in wrappers.seen]
    checkpoint = str(folder / 'whole' / 'epoch_3.pth')
    resumed = train('resumed', resume=True, load_from=checkpoint)
    saved = dict(
        whole=whole.model.module.state_dict(),
        resumed=resumed.model.module.state_dict(),
        alive=alive,
        wrapper=[type(whole.model).__name__, whole.model.bucket_bytes_cap],
        compiled=compiled,
    )
    torch.save(saved, folder / f'{rank}.pth')
    leave_process_group()


@pytest.mark.slow
def test_two_processes_train_as_one_does_on_both_halves(tmp_path):
    torch.multiprocessing.spawn(train_on_rank, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    alone = make(tmp_path / 'alone', model=detector_without_norms())
    alone._train_dataloader['batch_size'] = 4
    alone.train()
    due = alone.model.state_dict()
    assert first['whole'].keys() == due.keys()
    for name, tensor in due.items():
        torch.testing.assert_close(first['whole'][name], tensor)
        for other in (first['resumed'], second['whole'], second['resumed']):
            assert torch.equal(first['whole'][name], other[name])
    assert first['alive'] == [False] * 5 + [True]  # the wrappers of earlier phases are gone
    assert first['wrapper'] == ['MMDistributedDataParallel', 3 * 2**20]
    # Each of the wrappers: two before the first step and one for each later phase.
    assert first['compiled'] == ['train_step'] * (2 + 4 + 2 + 2)
