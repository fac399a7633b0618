"""Every violation of freezing stops a real run and is named."""

import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import BaseModel, BaseModule
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from toy_runner import make_runner

from projects.cmt_aqr.freezing import FreezePolicy, audit_hook, freeze
from projects.cmt_aqr.freezing.audit import FreezeViolation, Kind, digests, total_digest
from projects.cmt_aqr.freezing.audit_hook import FreezeAuditHook
from projects.cmt_aqr.process_group import leave_process_group


class Backbone(BaseModule):
    """One layer, its norm and a dropout."""

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.linear = nn.Linear(1, 3)
        self.norm = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.norm(self.linear(x)))


BACKBONE = {
    'backbone.linear.weight',
    'backbone.linear.bias',
    'backbone.norm.weight',
    'backbone.norm.bias',
    'backbone.norm.running_mean',
    'backbone.norm.running_var',
    'backbone.norm.num_batches_tracked',
}


class TwoPartModel(BaseModel):
    """A backbone, frozen or not, and a head."""

    def __init__(self, *, policy: FreezePolicy | None = None, init_cfg: dict | None = None) -> None:
        super().__init__()
        self.backbone = Backbone(init_cfg)
        self.line = nn.Linear(3, 1)
        if policy is not None:
            freeze(self.backbone, policy, name='backbone')

    def forward(self, inputs: torch.Tensor, data_samples: torch.Tensor, mode: str = 'tensor'):
        prediction = self.line(self.backbone(inputs))
        if mode == 'loss':
            return dict(loss_line=((prediction - data_samples) ** 2).mean())
        return [*prediction]


class FrozenModel(TwoPartModel):
    def __init__(self, **options) -> None:
        super().__init__(policy=FreezePolicy(frozen=True), **options)


class Sabotage(Hook):
    """Does something to the model at one stage of the second iteration."""

    iteration = 1

    def __init__(self, action, stage: str = 'before_train_iter') -> None:
        self.action = action
        setattr(self, stage, self._act)

    def _act(self, runner: Runner, *args, **kwargs) -> None:
        if runner.iter == self.iteration:
            with torch.no_grad():
                self.action(runner)


def save_checkpoint(path: Path, *, without: str = 'nothing') -> str:
    """Weights of another model of the same kind, but those whose names begin with ``without``."""
    state = TwoPartModel().state_dict()
    for name in [name for name in state if name.startswith(without)]:
        del state[name]
    torch.save(dict(state_dict=state), path)
    return str(path)


def runner_of(model: nn.Module, work_dir: Path, *hooks: Hook, audit=None, **options) -> Runner:
    """Runner with an audit, whose optimizer holds what is trainable alone."""
    audit = audit or FreezeAuditHook()
    runner = make_runner(work_dir, model=model, custom_hooks=[*hooks, audit], **options)
    trainable = [p for p in runner.model.parameters() if p.requires_grad]
    runner.optim_wrapper = OptimWrapper(torch.optim.AdamW(trainable, lr=0.01))
    return runner


def loaded_runner(model: nn.Module, tmp_path: Path, *hooks: Hook, **options) -> Runner:
    checkpoint = save_checkpoint(tmp_path / 'cmt.pth')
    return runner_of(model, tmp_path / 'run', *hooks, load_from=checkpoint, **options)


def report_of(runner: Runner) -> dict:
    return json.loads((Path(runner.log_dir) / 'freeze_audit.json').read_text())


def violations_of(runner: Runner) -> dict[Kind, set[str]]:
    """Train, and return what stopped the run, after checking that all of it was written down."""
    with pytest.raises(FreezeViolation) as error:
        runner.train()
    report = report_of(runner)
    found = error.value.violations
    assert report['state'] == 'violated'
    assert [v['kind'] for v in report['violations']] == [v.kind.title for v in found]
    for violation in found:
        assert violation.kind.title in str(error.value)
        assert violation.kind.remedy in str(error.value)
        assert violation.details or all(name in str(error.value) for name in violation.names)
    return {violation.kind: set(violation.names) for violation in found}


# What is in order passes.


def test_clean_run_passes_and_writes_its_report(tmp_path):
    runner = loaded_runner(FrozenModel(), tmp_path, epochs=2)
    runner.train()
    report = report_of(runner)
    assert report['state'] == 'passed'
    assert report['iteration'] == 4
    assert report['violations'] == []
    assert report['values_equal_at_end'] is True
    tensors = {name: runner.model.state_dict()[name] for name in BACKBONE}
    assert report['digest'] == total_digest(digests(tensors))
    assert report['filled_from'] == {str(tmp_path / 'cmt.pth'): len(BACKBONE)}
    assert report['unfilled'] == []
    assert (report['frozen_parameters'], report['frozen_buffers']) == (4, 3)
    parts = {row['part']: row for row in report['modules']}
    assert (parts['backbone']['frozen'], parts['backbone']['trainable']) == (12, 0)
    assert (parts['line']['frozen'], parts['line']['trainable']) == (0, 4)
    assert parts['line']['rate'] == dict(start=[0.01, 0.01], highest=None, end=None)
    assert parts['backbone']['rate'] is None


def test_report_is_written_at_the_start(tmp_path):
    states = []
    look = Sabotage(lambda runner: states.append(report_of(runner)['state']))
    loaded_runner(FrozenModel(), tmp_path, look).train()
    assert states == ['training']


def test_table_is_logged_before_training(tmp_path):
    runner = loaded_runner(FrozenModel(), tmp_path)
    runner.train()
    (log,) = Path(runner.log_dir).glob('*.log')
    row = next(line for line in log.read_text().splitlines() if line.startswith('backbone '))
    assert row.split() == ['backbone', '12', '0', '0.00', '0.00', '-', '-', '-']


def test_nothing_frozen_passes_with_no_more_than_the_table(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(audit_hook, 'print_log', lambda text, **options: logged.append(text))
    runner = runner_of(TwoPartModel(), tmp_path)
    runner.train()
    (_, table) = logged
    assert table.startswith('parameters by module:')
    report = report_of(runner)
    assert (report['state'], report['frozen_parameters']) == ('passed', 0)


def test_training_twice_with_one_runner_needs_no_second_load(tmp_path):
    runner = loaded_runner(FrozenModel(), tmp_path)
    runner.train()
    runner._train_loop = dict(by_epoch=True, max_epochs=1)
    runner.train()
    assert report_of(runner)['state'] == 'passed'


def test_resume_counts_the_own_checkpoint_as_source(tmp_path):
    loaded_runner(FrozenModel(), tmp_path).train()
    runner = runner_of(FrozenModel(), tmp_path / 'run', epochs=2, resume=True)
    runner.train()
    report = report_of(runner)
    assert report['filled_from'] == {f'last checkpoint in {tmp_path / "run"}': len(BACKBONE)}
    assert (report['state'], report['iteration']) == ('passed', 4)


def test_pretrained_init_cfg_counts_as_source(tmp_path):
    torch.save(dict(state_dict=Backbone().state_dict()), tmp_path / 'backbone.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth'))
    runner = runner_of(FrozenModel(init_cfg=init_cfg), tmp_path / 'run')
    runner.train()
    assert report_of(runner)['filled_from'] == {'init_cfg': len(BACKBONE)}


@pytest.mark.parametrize('update_buffers', [False, True])
def test_averaged_model_passes(tmp_path, update_buffers):
    ema = EMAHook(momentum=0.5, update_buffers=update_buffers)
    runner = loaded_runner(FrozenModel(), tmp_path, ema, epochs=2)
    runner.train()
    assert report_of(runner)['state'] == 'passed'


# Not filled from a checkpoint.


def test_no_checkpoint_is_refused(tmp_path):
    runner = runner_of(FrozenModel(), tmp_path)
    assert violations_of(runner) == {Kind.UNFILLED: BACKBONE}
    assert runner.iter == 0


def test_half_loaded_checkpoint_is_refused(tmp_path):
    checkpoint = save_checkpoint(tmp_path / 'half.pth', without='backbone.linear')
    runner = runner_of(FrozenModel(), tmp_path / 'run', load_from=checkpoint)
    missing = {'backbone.linear.weight', 'backbone.linear.bias'}
    assert violations_of(runner) == {Kind.UNFILLED: missing}


def test_missing_head_is_no_violation(tmp_path):
    checkpoint = save_checkpoint(tmp_path / 'backbone.pth', without='line')
    runner = runner_of(FrozenModel(), tmp_path / 'run', load_from=checkpoint)
    runner.train()
    assert report_of(runner)['state'] == 'passed'


def test_weights_loaded_before_the_run_initialises_them_do_not_count(tmp_path):
    runner = runner_of(FrozenModel(), tmp_path / 'run')
    runner.load_checkpoint(save_checkpoint(tmp_path / 'cmt.pth'))
    assert violations_of(runner) == {Kind.UNFILLED: BACKBONE}


def test_allow_unfilled_lets_named_modules_stay_as_initialised(tmp_path):
    checkpoint = save_checkpoint(tmp_path / 'half.pth', without='backbone.linear')
    audit = FreezeAuditHook(allow_unfilled=['linear'])
    runner = runner_of(FrozenModel(), tmp_path / 'run', audit=audit, load_from=checkpoint)
    runner.train()
    assert report_of(runner)['unfilled'] == ['backbone.linear.weight', 'backbone.linear.bias']


def test_allow_unfilled_that_matches_nothing_is_an_error(tmp_path):
    audit = FreezeAuditHook(allow_unfilled=['img_backbone'])
    runner = loaded_runner(FrozenModel(), tmp_path, audit=audit)
    with pytest.raises(ValueError, match=r"'img_backbone' matches no submodule; .* line$"):
        runner.train()


# Sabotage.


def bias_of(runner: Runner) -> nn.Parameter:
    return runner.model.backbone.linear.bias


def change(name: str):
    """Change one value of a tensor of the backbone in place."""
    return lambda r: r.model.backbone.state_dict()[name].view(-1)[0].add_(1e-6)


def replace_weight(runner: Runner) -> None:
    weight = nn.Parameter(torch.ones(3, 1), requires_grad=False)
    runner.model.backbone.linear.weight = weight


SABOTAGE = {
    'a norm in training mode': (
        lambda r: r.model.backbone.norm.train(),
        {Kind.IN_TRAINING_MODE: {'backbone.norm'}},
    ),
    'a changed weight': (change('linear.weight'), {Kind.CHANGED: {'backbone.linear.weight'}}),
    'a changed norm': (change('norm.bias'), {Kind.CHANGED: {'backbone.norm.bias'}}),
    'a changed buffer': (
        change('norm.running_var'),
        {Kind.CHANGED: {'backbone.norm.running_var'}},
    ),
    'a replaced parameter': (replace_weight, {Kind.CHANGED: {'backbone.linear.weight'}}),
    'a parameter in a group': (
        lambda r: r.optim_wrapper.param_groups[0]['params'].append(bias_of(r)),
        {Kind.IN_OPTIMIZER: {'backbone.linear.bias'}},
    ),
}


@pytest.mark.parametrize('kind', SABOTAGE)
def test_sabotage_stops_the_run(tmp_path, kind):
    action, expected = SABOTAGE[kind]
    runner = loaded_runner(FrozenModel(), tmp_path, Sabotage(action))
    assert violations_of(runner) == expected
    # By value, a change is found at the end of the epoch; everything else after the step.
    assert runner.iter == (2 if Kind.CHANGED in expected else 1)
    assert not list((tmp_path / 'run').glob('*.pth')), 'a checkpoint was saved before the check'


def test_norm_in_training_mode_only_during_the_forward_is_seen_by_value(tmp_path):
    model = FrozenModel()
    norm = model.backbone.norm
    norm.register_forward_pre_hook(lambda *_: setattr(norm, 'training', torch.is_grad_enabled()))
    norm.register_forward_hook(lambda *_: setattr(norm, 'training', False))
    drifted = {f'backbone.norm.{n}' for n in ('running_mean', 'running_var', 'num_batches_tracked')}
    assert violations_of(loaded_runner(model, tmp_path)) == {Kind.CHANGED: drifted}


def test_norm_without_gradient_is_not_frozen_enough(tmp_path):
    model = TwoPartModel()
    model.backbone.requires_grad_(False)
    modules = {'backbone.norm', 'backbone.dropout'}
    assert violations_of(loaded_runner(model, tmp_path)) == {Kind.IN_TRAINING_MODE: modules}


def test_norm_eval_is_audited_on_trainable_modules(tmp_path):
    model = TwoPartModel(policy=FreezePolicy(norm_eval=True))
    drift = Sabotage(lambda r: model.backbone.norm.running_mean.add_(1))
    changed = {'backbone.norm.running_mean'}
    assert violations_of(loaded_runner(model, tmp_path, drift)) == {Kind.CHANGED: changed}


def test_change_during_the_last_validation(tmp_path):
    class ChangeInValidation(Hook):
        def after_val_epoch(self, runner, metrics=None):
            bias_of(runner).data.zero_()

    runner = loaded_runner(FrozenModel(), tmp_path)
    runner.register_hook(ChangeInValidation())
    assert violations_of(runner) == {Kind.CHANGED: {'backbone.linear.bias'}}


def test_gradient_let_through_during_the_forward(tmp_path):
    model = FrozenModel()
    linear = model.backbone.linear
    linear.register_forward_pre_hook(lambda *_: setattr(linear.bias, 'requires_grad', True))
    restore = Sabotage(lambda _: linear.bias.requires_grad_(False), stage='after_train_iter')
    restore.iteration, restore.priority = 0, 'HIGHEST'
    runner = loaded_runner(model, tmp_path, restore)
    assert violations_of(runner) == {Kind.HAS_GRADIENT: {'backbone.linear.bias'}}
    assert runner.iter == 0


def test_parameter_that_requires_a_gradient_again(tmp_path):
    thaw = Sabotage(lambda r: bias_of(r).requires_grad_(True), 'after_train_iter')
    thaw.priority = 'HIGHEST'
    runner = loaded_runner(FrozenModel(), tmp_path, thaw)
    assert violations_of(runner) == {Kind.REQUIRES_GRAD: {'backbone.linear.bias'}}


def test_frozen_parameter_in_the_optimizer_from_the_start(tmp_path):
    model = FrozenModel()
    runner = loaded_runner(model, tmp_path)
    runner.optim_wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.01))
    parameters = {f'backbone.{name}' for name, _ in model.backbone.named_parameters()}
    assert violations_of(runner) == {Kind.IN_OPTIMIZER: parameters}
    assert runner.iter == 0


def test_parameter_of_a_frozen_module_that_trains_from_the_start(tmp_path):
    model = FrozenModel()
    model.backbone.linear.bias.requires_grad_(True)
    bias = {'backbone.linear.bias'}
    found = violations_of(loaded_runner(model, tmp_path))
    assert found == {Kind.REQUIRES_GRAD: bias, Kind.IN_OPTIMIZER: bias}


def test_averaged_model_with_other_frozen_weights(tmp_path):
    ema = EMAHook(momentum=0.5)
    drift = Sabotage(lambda r: ema.ema_model.module.backbone.linear.weight.mul_(2))
    found = violations_of(loaded_runner(FrozenModel(), tmp_path, ema, drift))
    assert found == {Kind.AVERAGE_DIFFERS: {'backbone.linear.weight'}}


# Before a checkpoint is saved.


class SavedAt(Hook):
    """Notes the iteration of each checkpoint, counted from 1."""

    def __init__(self) -> None:
        self.iterations = []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.iterations.append(runner.iter + 1)


def by_iteration(runner: Runner, *, max_iters: int = 8, **options) -> Runner:
    """Train by iterations instead, and save as a `CheckpointHook` with ``options`` says."""
    runner._train_loop = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=100)
    runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, CheckpointHook)]
    runner.register_hook(CheckpointHook(by_epoch=False, **options))
    return runner


@pytest.fixture
def _no_wait(monkeypatch):
    """mmengine waits two seconds when an endless loader starts again."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)


@pytest.mark.usefixtures('_no_wait')
@pytest.mark.parametrize(
    ('options', 'saved', 'stopped_at'),
    [
        (dict(interval=3), [3], 5),
        (dict(interval=2), [2, 4], 5),
        (dict(interval=2, save_begin=3), [3], 4),
        (dict(interval=-1, save_last=True), [], 7),
        (dict(interval=-1, save_last=False), [], 8),
    ],
)
def test_values_are_compared_where_a_checkpoint_is_saved(tmp_path, options, saved, stopped_at):
    model = FrozenModel()
    change = Sabotage(lambda r: model.backbone.linear.bias.zero_())
    change.iteration = saved[-1] if saved else 1
    notes = SavedAt()
    runner = by_iteration(loaded_runner(model, tmp_path, change, notes), **options)
    assert violations_of(runner) == {Kind.CHANGED: {'backbone.linear.bias'}}
    assert notes.iterations == saved
    assert runner.iter == stopped_at


def test_change_during_a_validation_comes_before_its_best_checkpoint(tmp_path):
    model = FrozenModel()

    class ChangeInValidation(Hook):
        def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            model.backbone.linear.bias.data.zero_()

    runner = loaded_runner(model, tmp_path, ChangeInValidation())
    assert violations_of(runner) == {Kind.CHANGED: {'backbone.linear.bias'}}
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['epoch_1.pth']


def test_validation_alone_is_compared_with_nothing(tmp_path):
    audit = FreezeAuditHook()
    runner = loaded_runner(FrozenModel(), tmp_path, audit=audit)
    audit.after_val_epoch(runner, metrics={'count': 4.0})
    assert not list((tmp_path / 'run').glob('*/freeze_audit.json'))


# Rates.


def scheduled(tmp_path: Path, *schedulers: dict, in_config: bool = True) -> Runner:
    """A run of two epochs whose bias is to learn at a tenth of the rate, and its schedule."""
    model = FrozenModel()
    cfg = dict(param_scheduler=list(schedulers)) if in_config else {}
    runner = loaded_runner(model, tmp_path, epochs=2, cfg=cfg)
    runner.param_schedulers = list(schedulers)
    groups = [
        dict(params=[model.line.weight], name='default', lr=0.01, lr_mult=1.0),
        dict(params=[model.line.bias], name='line.bias', lr=0.001, lr_mult=0.1),
    ]
    runner.optim_wrapper = OptimWrapper(torch.optim.AdamW(groups, lr=0.01))
    return runner


def test_table_has_the_rates_over_the_whole_run(tmp_path):
    schedule = [
        dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=2),
        dict(type='MultiStepLR', milestones=[1], gamma=0.1),
    ]
    runner = scheduled(tmp_path, *schedule)
    runner.train()
    (line,) = (row for row in report_of(runner)['modules'] if row['part'] == 'line')
    expected = dict(start=[5e-4, 5e-3], highest=[1e-3, 1e-2], end=[1e-4, 1e-3])
    assert line['rate'].keys() == expected.keys()
    for moment, rates in expected.items():
        assert line['rate'][moment] == pytest.approx(rates), moment
    (log,) = Path(runner.log_dir).glob('*.log')
    row = next(text for text in log.read_text().splitlines() if text.startswith('line '))
    columns = ['0.0005 to 0.005', '0.001 to 0.01', '0.0001 to 0.001']
    assert row.endswith('  '.join(columns))


@pytest.mark.parametrize(
    ('scheduler', 'remedy'),
    [
        (dict(type='CosineAnnealingLR', T_max=2, eta_min=5e-3), 'use eta_min_ratio=0.5'),
        (
            dict(type='OneCycleLR', by_epoch=False, eta_max=0.1, total_steps=4),
            'use two CosineAnnealingLR with eta_min_ratio',
        ),
    ],
    ids=['absolute eta_min', 'one cycle'],
)
def test_schedule_that_overrides_a_multiplier_is_refused_with_the_remedy(
    tmp_path, scheduler, remedy
):
    runner = scheduled(tmp_path, scheduler)
    assert violations_of(runner) == {Kind.RATES_OVERRIDDEN: {'param_scheduler'}}
    assert runner.iter == 0
    (violation,) = report_of(runner)['violations']
    assert (
        f"param_scheduler[0], {scheduler['type']}: group 'line.bias' should get 0.1"
        in (violation['details'])
    )
    assert remedy in violation['details']


@pytest.mark.usefixtures('_no_wait')
def test_rates_of_a_run_by_iterations(tmp_path):
    schedule = dict(type='MultiStepLR', by_epoch=False, milestones=[3], gamma=0.1)
    runner = by_iteration(scheduled(tmp_path, schedule), interval=8)
    runner.train()
    (line,) = (row for row in report_of(runner)['modules'] if row['part'] == 'line')
    assert line['rate']['end'] == pytest.approx([1e-4, 1e-3])


@pytest.mark.parametrize('scheduled_in', ['an object', 'nothing'])
def test_rates_without_a_schedule_in_the_config(tmp_path, scheduled_in):
    runner = scheduled(tmp_path, dict(type='MultiStepLR', milestones=[1]), in_config=False)
    if scheduled_in == 'nothing':
        runner.param_schedulers = None
    runner.train()
    (line,) = (row for row in report_of(runner)['modules'] if row['part'] == 'line')
    start = [0.001, 0.01]
    later = None if scheduled_in == 'an object' else start
    assert line['rate'] == dict(start=start, highest=later, end=later)
    (log,) = Path(runner.log_dir).glob('*.log')
    is_said = 'were passed as objects and cannot be simulated' in log.read_text()
    assert is_said == (scheduled_in == 'an object')


# Several processes.


SABOTAGE_OF_RANK_1 = dict(
    value=lambda model: model.backbone.linear.bias.zero_(),
    mode=lambda model: model.backbone.norm.train(),
)


def train_on_rank(rank: int, folder: Path, kind: str) -> None:
    """Train with DDP, sabotaged in the first iteration on rank 1 alone."""
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / 'store'), 2)
    torch.distributed.init_process_group('gloo', store=store, rank=rank, world_size=2)
    model = FrozenModel()
    change = Sabotage(lambda r: SABOTAGE_OF_RANK_1[kind](model) if rank == 1 else None)
    change.iteration = 0
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    runner = runner_of(
        model,
        folder / 'run',
        change,
        load_from=str(folder / 'cmt.pth'),
        launcher='pytorch',
        cfg=dict(model_wrapper_cfg=wrapper),
    )
    try:
        runner.train()
    except FreezeViolation as error:
        found = [(v.kind.title, v.names, v.ranks) for v in error.violations]
        torch.save((found, runner.iter), folder / f'{rank}')
    leave_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'found', 'iteration'),
    [
        ('value', (Kind.CHANGED.title, ('backbone.linear.bias',), (1,)), 1),
        ('mode', (Kind.IN_TRAINING_MODE.title, ('backbone.norm',), (1,)), 0),
    ],
    ids=['at the end of an epoch', 'after a step'],
)
def test_all_processes_stop_at_a_violation_in_one(tmp_path, kind, found, iteration):
    save_checkpoint(tmp_path / 'cmt.pth')
    torch.multiprocessing.spawn(train_on_rank, args=(tmp_path, kind), nprocs=2)
    assert torch.load(tmp_path / '0') == torch.load(tmp_path / '1') == ([found], iteration)
    (report,) = tmp_path.glob('run/*/freeze_audit.json')
    (violation,) = json.loads(report.read_text())['violations']
    assert (violation['names'], violation['ranks']) == (list(found[1]), [1])


# What is frozen changes on purpose.


def test_rebase_audits_the_newly_frozen_parts(tmp_path):
    model = FrozenModel()
    audit = FreezeAuditHook()

    class Unfreeze(Hook):
        priority = 'HIGHEST'

        def before_train_epoch(self, runner: Runner) -> None:
            if runner.epoch != 1:
                return
            freeze(model.backbone, FreezePolicy(), name='backbone')
            new = dict(params=list(model.backbone.parameters()), initial_lr=0.01)
            runner.optim_wrapper.optimizer.add_param_group(new)
            audit.rebase(runner)

    runner = loaded_runner(model, tmp_path, Unfreeze(), audit=audit, epochs=2)
    before = model.backbone.linear.weight.clone()
    runner.train()
    assert not torch.equal(before, model.backbone.linear.weight)
    report = report_of(runner)
    assert report['state'] == 'passed'
    assert report['rebased_at_iteration'] == [2]
    assert report['frozen_parameters'] == 0


def test_rebase_checks_the_previously_frozen_parts(tmp_path):
    model = FrozenModel()
    audit = FreezeAuditHook()

    def change_and_rebase(runner: Runner) -> None:
        model.backbone.linear.bias.zero_()
        audit.rebase(runner)

    runner = loaded_runner(model, tmp_path, Sabotage(change_and_rebase), audit=audit)
    assert violations_of(runner) == {Kind.CHANGED: {'backbone.linear.bias'}}
    assert runner.iter == 1


# Options.


@pytest.mark.parametrize('patterns', ['img_backbone', [1]])
def test_allow_unfilled_must_be_a_list_of_patterns(patterns):
    with pytest.raises(ValueError, match=r'allow_unfilled .* must be a list of patterns'):
        FreezeAuditHook(allow_unfilled=patterns)
