"""Hook that verifies the freezing of a training run and stops it at a violation."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from mmdet3d.registry import HOOKS
from mmengine.dist import all_gather_object, all_reduce, master_only
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner

from ..files import dump_json
from ..running_hooks import note_running, unwrap
from . import audit
from .audit import FreezeViolation, Frozen, Kind, Violation
from .load_watch import LoadWatch
from .names import matching_submodules
from .report import describe, format_table, make_table
from .schedule import RateSummary, RunLength, plan_rates


@HOOKS.register_module()
class FreezeAuditHook(Hook):
    """Checks that frozen parts stay frozen, without changing anything.

    - Before training: a checkpoint filled every frozen tensor, no frozen parameter is in the
      optimizer, and no scheduler overrides the rates of single modules. A table of the parameters
      and learning rates of every module is logged.
    - After each step: frozen parameters have no gradient and are in no optimizer, and frozen
      modules are in evaluation mode.
    - After each epoch, before a checkpoint is saved by iteration or by score, and at the end:
      frozen parameters and buffers, including those of an averaged model (mmengine's ``EMAHook``),
      equal their initial values bit for bit.

    :func:`~projects.cmt_aqr.freezing.audit.find_frozen` defines what is frozen.

    All processes check together, and a violation in one stops all of them, before the checkpoint of
    that step, epoch or score is saved. The findings are also written to
    ``<log_dir>/freeze_audit.json`` at the start and at the end.

    The rates over the run are those of ``param_scheduler`` in the config. Schedulers that were
    passed to the Runner as objects cannot be simulated, which the log then states.

    Args:
        allow_unfilled: `fnmatch` patterns, for the full dotted name or its end, of modules whose
            frozen tensors may keep their initial values.

    Raises:
        ValueError: `allow_unfilled` is not a list of strings, or, before training, a pattern
            matches no module.
        FreezeViolation: during training, a check failed.
    """

    priority = 'VERY_HIGH'

    def __init__(self, *, allow_unfilled: Sequence[str] = ()) -> None:
        if isinstance(allow_unfilled, str) or not all(isinstance(p, str) for p in allow_unfilled):
            raise ValueError(f'allow_unfilled {allow_unfilled!r} must be a list of patterns')
        self.allow_unfilled = tuple(allow_unfilled)
        self._watch: LoadWatch | None = None
        self._filled: dict[str, str] = {}
        self._frozen: Frozen | None = None
        self._expected: dict[str, str] = {}
        self._trained: set[str] = set()
        self._info: dict = {}

    def before_run(self, runner: Runner) -> None:
        """Start to watch the loading of weights.

        Earlier loads do not count, since ``Runner.train`` initialises the weights next; only a
        Runner that trains a second time does not.
        """
        if self._frozen is not None:
            return
        if self._watch is not None:
            self._watch.close()
        self._watch = LoadWatch(unwrap(runner.model), source='init_cfg')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Set the source of the tensors that are loaded next."""
        if self._watch is not None:
            self._watch.source = str(runner._load_from or f'last checkpoint in {runner.work_dir}')

    def before_train(self, runner: Runner) -> None:
        """Log the table, run all checks that need no step and start the report."""
        model = unwrap(runner.model)
        note_running(model, FreezeAuditHook.__name__)
        self._watch.close()
        self._filled = self._watch.filled(model)
        allowed = matching_submodules(model, self.allow_unfilled, option='allow_unfilled')
        self._info = {'rebased_at_iteration': [], 'values_equal_at_end': None}
        found = self._set_base(runner)
        found += audit.check_filled(model, self._frozen, self._filled, allowed)
        found += audit.check_parameters(self._frozen, runner.optim_wrapper)
        self._stop_together(runner, found)
        self._write(runner, 'training')

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Check gradients, modes and optimizer groups, and values if a checkpoint will be saved."""
        found = audit.check_parameters(self._frozen, runner.optim_wrapper)
        found += audit.check_modes(self._frozen)
        if any(_saves_now(hook, runner) for hook in runner.hooks):
            found += self._check_values(runner)
        self._stop_together(runner, found)

    def after_train_epoch(self, runner: Runner) -> None:
        """Compare all frozen tensors with their initial values."""
        self._stop_together(runner, self._check_values(runner))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Compare values if a checkpoint may be saved for its score; during training only."""
        if self._frozen is not None and any(_saves_best(hook) for hook in runner.hooks):
            self._stop_together(runner, self._check_values(runner, averages_in_place=True))

    def after_train(self, runner: Runner) -> None:
        """Compare values again, since a validation came after the last epoch; finish the report."""
        self._stop_together(runner, self._check_values(runner))
        self._info['values_equal_at_end'] = True
        self._write(runner, 'passed')

    def note_trained(self, names: Iterable[str]) -> None:
        """Register tensors trained earlier in this run, whose average lags behind."""
        self._trained.update(names)

    def rebase(self, runner: Runner) -> None:
        """Audit what is frozen now, after a deliberate change of the frozen parts.

        All processes must call this together, between two steps. The parts that were frozen so far
        are first checked by value, and the rates of newly trainable parameters afterwards.
        """
        self._stop_together(runner, self._check_values(runner))
        self._stop_together(runner, self._set_base(runner))
        self._info['rebased_at_iteration'].append(runner.iter)
        self._write(runner, 'training')

    def _set_base(self, runner: Runner) -> list[Violation]:
        """Record the frozen parts and their values, log the table, and check the rates."""
        model = unwrap(runner.model)
        self._frozen = audit.find_frozen(model)
        self._expected = audit.digests(self._frozen.tensors)
        rates, fault = _plan(runner)
        table = make_table(model, rates)
        print_log(f'parameters by module:\n{format_table(table)}', logger='current')
        self._info |= describe(self._frozen, self._filled, table)
        self._info['digest'] = audit.total_digest(self._expected)
        return audit.check_rates(fault)

    def _check_values(self, runner: Runner, *, averages_in_place: bool = False) -> list[Violation]:
        """Compare with the recorded values.

        ``averages_in_place`` means that a validation has swapped averages into the model.
        """
        averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        never_trained = {n: d for n, d in self._expected.items() if n not in self._trained}
        expected = never_trained if averages and averages_in_place else self._expected
        found = audit.check_values(unwrap(runner.model), expected)
        # Averages do not include tensors that are not in the state dict.
        loadable = {n: never_trained[n] for n in self._frozen.loadable if n in never_trained}
        for average in averages:
            found += audit.check_values(average, loadable, Kind.AVERAGE_DIFFERS)
        return found

    def _stop_together(self, runner: Runner, found: list[Violation]) -> None:
        """Stop all processes if any of them found a violation; all must call this."""
        # Every step reduces a single number, which takes 0.2 ms between two CPU processes, and
        # all_gather_object 0.8 ms. A GPU waits for it, as for the norm of the gradient.
        anything = torch.tensor(len(found))
        all_reduce(anything, op='max')
        if not anything:
            return
        violations = audit.merge_ranks(all_gather_object(found))
        self._write(runner, 'violated', violations)
        error = FreezeViolation(violations)
        print_log(str(error), logger='current', level=logging.ERROR)
        raise error

    @master_only
    def _write(self, runner: Runner, state: str, violations: Sequence[Violation] = ()) -> None:
        found = [violation.describe() for violation in violations]
        report = {'state': state, 'iteration': runner.iter, **self._info, 'violations': found}
        dump_json(Path(runner.log_dir) / 'freeze_audit.json', report)


def _plan(runner: Runner) -> tuple[dict[int, RateSummary], str | None]:
    """The rates over the run, or only the initial ones if its config lacks the schedulers."""
    config = runner.cfg.get('param_scheduler')
    groups = runner.optim_wrapper.optimizer.param_groups
    if runner.param_schedulers and not config:
        print_log(
            'the schedulers of this run were passed as objects and cannot be simulated: only the '
            'initial learning rates are known, and their ratios are not checked',
            logger='current',
            level=logging.WARNING,
        )
        return {id(p): RateSummary(group['lr']) for group in groups for p in group['params']}, None
    loop = runner.train_loop
    by_iteration = isinstance(loop, IterBasedTrainLoop)
    length = dict(max_iters=loop.max_iters) if by_iteration else dict(max_epochs=loop.max_epochs)
    return plan_rates(groups, config, RunLength(epoch_length=len(loop.dataloader), **length))


def _saves_now(hook: Hook, runner: Runner) -> bool:
    """Whether ``hook`` saves a checkpoint after this iteration."""
    if not isinstance(hook, CheckpointHook) or hook.by_epoch:
        return False
    last = hook.save_last and hook.is_last_train_iter(runner)
    return last or hook.every_n_train_iters(runner, hook.interval, hook.save_begin)


def _saves_best(hook: Hook) -> bool:
    return isinstance(hook, CheckpointHook) and hook.save_best is not None
