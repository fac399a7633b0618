"""Stop a run in which something frozen is not, and write down what was found."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmdet3d.registry import HOOKS
from mmengine.dist import all_gather_object, get_rank, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from . import audit
from .audit import FreezeViolation, Frozen, Kind, LoadWatch, Violation


@HOOKS.register_module()
class FreezeAuditHook(Hook):
    """Check that what is frozen stays frozen; change nothing and trust nothing.

    Before training: every frozen tensor was filled from a checkpoint, and no frozen parameter is in
    the optimizer; the log gets a table of every module's parameters and learning rates. After each
    step: frozen parameters have no gradient and are in no optimizer, frozen modules are in
    evaluation mode. After each epoch and at the end: frozen parameters and buffers, also those of
    an averaged model (mmengine's ``EMAHook``), are bit for bit what they were at the start. See
    :func:`~projects.cmt_aqr.freezing.audit.find_frozen` for what counts as frozen.

    The checks before training, after epochs and at the end are made by all processes together, so
    that all of them stop at what one has found. A process that finds something after a step
    raises at once and leaves it to the launcher to end the others. A violation comes before the
    checkpoint of that step or epoch is saved.

    What was found is also written to ``<log_dir>/<report>``, at the start and at the end.

    Args:
        allow_unfilled: patterns of modules, as `fnmatch` reads them, whose frozen tensors may stay
            as initialised; for the full dotted name or the end of it.
        interval: iterations from one check of steps to the next.
        report: name of the JSON file.

    Raises:
        ValueError: an option is not of this kind.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        *,
        allow_unfilled: Sequence[str] = (),
        interval: int = 1,
        report: str = 'freeze_audit.json',
    ) -> None:
        if isinstance(allow_unfilled, str) or not all(isinstance(p, str) for p in allow_unfilled):
            raise ValueError(f'allow_unfilled {allow_unfilled!r} must be a list of patterns')
        if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
            raise ValueError(f'interval {interval!r} must be a whole number from 1 on')
        self.allow_unfilled = tuple(allow_unfilled)
        self.interval = interval
        self.report = report
        self._watch: LoadWatch | None = None
        self._frozen: Frozen | None = None
        self._expected: dict[str, str] = {}
        self._info: dict = {}

    def before_run(self, runner: Runner) -> None:
        """Watch the loading from here on.

        What was loaded before does not count: ``Runner.train`` initialises the weights next, over
        what is there. Only a runner that trains a second time leaves its weights alone.
        """
        if self._frozen is not None:
            return
        if self._watch is not None:
            self._watch.close()
        self._watch = LoadWatch(_model(runner), source='init_cfg')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note where the tensors come from that are loaded next."""
        if self._watch is not None:
            self._watch.source = str(runner._load_from or f'last checkpoint in {runner.work_dir}')

    def before_train(self, runner: Runner) -> None:
        """Log the table, check what can be checked before the first step and start the report.

        Raises:
            FreezeViolation: frozen tensors were not filled, or take part in training.
            ValueError: a pattern of ``allow_unfilled`` matches no module.
        """
        model = _model(runner)
        self._watch.close()
        filled = self._watch.filled(model)
        allowed = audit.matching_modules(model, self.allow_unfilled)
        self._info = {}
        self._base(runner)
        loadable = self._frozen.loadable
        self._info |= {
            'filled_from': dict(Counter(filled[name] for name in loadable if name in filled)),
            'unfilled': [name for name in loadable if name not in filled],
            'rebased_at_iteration': [],
            'values_equal_at_end': None,
        }
        found = audit.check_filled(model, self._frozen, filled, allowed)
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
        """Check gradients, modes and optimizer groups.

        Raises:
            FreezeViolation: something frozen takes part in training.
        """
        if self.every_n_train_iters(runner, self.interval):
            found = audit.check_parameters(self._frozen, runner.optim_wrapper)
            self._stop(runner, found + audit.check_modes(self._frozen))

    def after_train_epoch(self, runner: Runner) -> None:
        """Compare all that is frozen with the start, by value.

        Raises:
            FreezeViolation: something has changed.
        """
        self._stop_together(runner, self._check_values(runner))

    def after_train(self, runner: Runner) -> None:
        """Compare once more, for a validation came since, and finish the report.

        Raises:
            FreezeViolation: something has changed.
        """
        self._stop_together(runner, self._check_values(runner))
        self._info['values_equal_at_end'] = True
        self._write(runner, 'passed')

    def rebase(self, runner: Runner) -> None:
        """Go on from what is frozen now; for whoever freezes or unfreezes on purpose.

        It first checks what was frozen so far, by value. All processes must call it together,
        between two steps.

        Raises:
            FreezeViolation: something has changed that was frozen until now.
        """
        self._stop_together(runner, self._check_values(runner))
        self._base(runner)
        self._info['rebased_at_iteration'].append(runner.iter)
        self._write(runner, 'training')

    def _base(self, runner: Runner) -> None:
        """Take down what is frozen now and its values, and log the table."""
        model = _model(runner)
        self._frozen = audit.find_frozen(model)
        self._expected = audit.digests(self._frozen.tensors)
        table = audit.rows(model, audit.current_rates(runner.optim_wrapper))
        print_log(f'parameters by module:\n{audit.format_table(table)}', logger='current')
        self._info |= {
            'modules': [dataclasses.asdict(row) for row in table],
            'frozen_parameters': len(self._frozen.parameters),
            'frozen_buffers': len(self._frozen.buffers),
            'modules_in_evaluation_mode': len(self._frozen.modules),
            'digest': audit.total_digest(self._expected),
        }

    def _check_values(self, runner: Runner) -> list[Violation]:
        found = audit.check_values(_model(runner), self._expected)
        # Averaging leaves out what no state dict holds.
        averaged = {name: self._expected[name] for name in self._frozen.loadable}
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                average = hook.ema_model.module
                found += audit.check_values(average, averaged, Kind.AVERAGE_DIFFERS)
        return found

    def _stop_together(self, runner: Runner, found: list[Violation]) -> None:
        """Stop all processes if any has found something; all must call it."""
        self._stop(runner, audit.merge_ranks(all_gather_object(found)))

    def _stop(self, runner: Runner, violations: list[Violation]) -> None:
        if not violations:
            return
        self._write(runner, 'violated', violations)
        error = FreezeViolation(violations)
        print_log(str(error), logger='current', level=logging.ERROR)
        raise error

    def _write(self, runner: Runner, state: str, violations: Sequence[Violation] = ()) -> None:
        """Write the report; of the other processes only those that alone have found something."""
        path = Path(runner.log_dir) / self.report
        if not is_main_process():
            if not violations or violations[0].ranks:
                return
            path = path.with_stem(f'{path.stem}_rank{get_rank()}')
        found = [{'kind': v.kind.title, 'names': v.names, 'ranks': v.ranks} for v in violations]
        report = {'state': state, 'iteration': runner.iter, **self._info, 'violations': found}
        path.write_text(json.dumps(report, indent=2) + '\n')


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
