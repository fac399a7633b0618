"""Let a module train, or freeze it, by a schedule of epochs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .audit_hook import FreezeAuditHook
from .building import freeze, preview
from .keeper import keeper_of
from .layers import is_within
from .members import keep_trainable, members
from .policy import FreezePolicy, FrozenNames


@HOOKS.register_module()
class UnfreezeScheduleHook(Hook):
    """Change what of a module is frozen at the beginning of epochs.

    What the schedule is ever to train must not be frozen in the model's config. The optimizer is
    then built with the groups of all phases, each with the rate that its key says, and a parameter
    is in its group while it trains; see :mod:`~projects.cmt_aqr.freezing.members`. So schedulers
    need no change, newly trainable parameters begin with fresh state, what is frozen again leaves
    the optimizer, and a checkpoint saved in any phase resumes in the one that is due.
    A module without a key in ``custom_keys`` learns at the base rate, which is high for a trained
    backbone.

    A model wrapped for distributed training is wrapped anew at each phase, as the Runner did: the
    reducer knows only what was trainable when it was built. A :class:`FreezeAuditHook` follows.

    Over a config that freezes the whole module, this trains its last layer from epoch 3 on, the
    last two from epoch 10, and all of it, the stem included, from epoch 15::

        model = dict(img_backbone=dict(frozen=False))
        custom_hooks = [
            *_base_.custom_hooks,
            dict(
                type='UnfreezeScheduleHook',
                module='img_backbone',
                schedule={0: dict(frozen=True), 3: 1, 10: 2, 15: dict(frozen=False)},
            ),
        ]

    Args:
        module: dotted name in the model; another hook may have the schedule of another module.
        schedule: for each epoch that begins a phase, counted from 0 and with one for 0, the
            settings of a :class:`FreezePolicy`, or the number of layers that train, counted from
            the output. Of what the model's config says, only `norm_eval` holds in all phases.

    Raises:
        ValueError: the schedule is no such mapping, or, before training: the model has no such
            module; an epoch that the run does not reach; a policy does not fit the module; a
            parameter that is to train is not in the optimizer; no phase trains anything; two
            schedules of one module; a run by iterations, with several optimizers, or with a
            model wrapped in something other than ``DistributedDataParallel``.
    """

    # Before the audit, which looks at what is frozen at the start.
    priority = 'HIGHEST'

    def __init__(self, *, module: str, schedule: Mapping[int, int | Mapping[str, Any]]) -> None:
        self.module = module
        self.policies = _read_schedule(schedule, module)
        self._frozen: dict[int, FrozenNames] = {}
        self._phase: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Check all phases and begin the one that is due, which in a resumed run may be any.

        Raises:
            ValueError: see the class.
        """
        self._check_runner(runner)
        module = self._find_module(runner)
        self._inherit_norm_eval(module)
        self._check_phases(runner, module)
        self._begin(runner, max(epoch for epoch in self.policies if epoch <= runner.epoch))

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin the phase of this epoch, if there is one."""
        if runner.epoch == self._phase or runner.epoch not in self.policies:
            return
        self._begin(runner, runner.epoch)
        for audit in _audits(runner):
            audit.rebase(runner)

    def _begin(self, runner: Runner, epoch: int) -> None:
        self._phase = epoch
        module = self._find_module(runner)
        freeze(module, self.policies[epoch], name=self.module)
        keep_trainable(runner.optim_wrapper.optimizer)
        _wrap_anew(runner)
        for audit in _audits(runner):
            audit.note_trained(self._trained_before(epoch, module))
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        total = sum(p.numel() for p in module.parameters())
        print_log(
            f'{self.module}: from epoch {epoch} on {trainable:,} of {total:,} parameters train',
            logger='current',
        )

    def _trained_before(self, epoch: int, module: nn.Module) -> Iterator[str]:
        """Names of the tensors that earlier phases let train, also those before a resumed run."""
        for start, frozen in self._frozen.items():
            if start < epoch:
                for name in module.state_dict():
                    if not frozen.cover(name):
                        yield f'{self.module}.{name}'

    def _find_module(self, runner: Runner) -> nn.Module:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        try:
            return model.get_submodule(self.module)
        except AttributeError:
            children = ', '.join(name for name, _ in model.named_children())
            raise ValueError(
                f'UnfreezeScheduleHook: module {self.module!r} is not in {type(model).__name__}, '
                f'which has {children} and what lies below'
            ) from None

    def _inherit_norm_eval(self, module: nn.Module) -> None:
        keeper = keeper_of(module)
        if keeper is not None and keeper.norm_eval:
            self.policies = {
                epoch: dataclasses.replace(policy, norm_eval=True)
                for epoch, policy in self.policies.items()
            }

    def _check_runner(self, runner: Runner) -> None:
        where = f'UnfreezeScheduleHook of {self.module}'
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(f'{where} counts epochs, but the run has iterations only')
        late = [epoch for epoch in self.policies if epoch >= runner.max_epochs]
        if late:
            raise ValueError(
                f'{where}: schedule has epoch {late[0]}, but the run ends after max_epochs '
                f'{runner.max_epochs}: allowed are 0 to {runner.max_epochs - 1}'
            )
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise ValueError(f'{where} needs one optimizer, not an OptimWrapperDict')
        if is_model_wrapper(runner.model) and not isinstance(runner.model, DistributedDataParallel):
            raise ValueError(
                f'{where} cannot wrap a model anew in {type(runner.model).__name__}; use '
                'MMDistributedDataParallel'
            )
        for other in runner.hooks:
            is_schedule = isinstance(other, UnfreezeScheduleHook) and other is not self
            if is_schedule and is_within(other.module, (self.module,)):
                raise ValueError(f'{where}: there is another one of {other.module}')

    def _check_phases(self, runner: Runner, module: nn.Module) -> None:
        """Resolve every phase, so that none can fail in the middle of a run."""
        optimized = {id(parameter) for parameter in members(runner.optim_wrapper.optimizer)}
        trained = set()
        for epoch, policy in self.policies.items():
            try:
                self._frozen[epoch] = frozen = preview(module, policy, name=self.module)
            except ValueError as error:
                raise ValueError(f'UnfreezeScheduleHook, epoch {epoch}: {error}') from None
            trains = [name for name in _not_frozen_otherwise(module) if not frozen.cover(name)]
            missing = [name for name in trains if id(module.get_parameter(name)) not in optimized]
            if missing:
                raise ValueError(
                    f'UnfreezeScheduleHook, epoch {epoch}: {len(missing)} parameters are to train, '
                    f'but are not in the optimizer, {self.module}.{missing[0]} for one: remove '
                    f"from the model's config what freezes them, and freeze {self.module} by the "
                    'schedule alone'
                )
            trained.update(trains)
        if not trained:
            raise ValueError(
                f'UnfreezeScheduleHook: no phase trains anything of {self.module}: it has no '
                'parameters, or they are frozen by other means than a policy of its own'
            )


def _not_frozen_otherwise(module: nn.Module) -> list[str]:
    """Names of the parameters that train once no policy of the module itself freezes them."""
    keeper = keeper_of(module)
    frozen_by_policy = keeper.taken_gradients if keeper is not None else []
    return [n for n, p in module.named_parameters() if p.requires_grad or n in frozen_by_policy]


def _read_schedule(schedule: object, module: str) -> dict[int, FreezePolicy]:
    """A policy for each epoch that begins a phase, in order."""
    where = f'UnfreezeScheduleHook of {module}: schedule'
    if not isinstance(schedule, Mapping):
        raise ValueError(f'{where} is {schedule!r}; it must be a dict of epochs')
    wrong = [epoch for epoch in schedule if not _is_count(epoch)]
    if wrong:
        raise ValueError(f'{where} has epoch {wrong[0]!r}; it must be a whole number from 0 on')
    if 0 not in schedule:
        raise ValueError(f'{where} has epochs {sorted(schedule)}; it must say what epoch 0 trains')
    return {epoch: _read_phase(schedule[epoch], f'{where}[{epoch}]') for epoch in sorted(schedule)}


def _read_phase(phase: object, where: str) -> FreezePolicy:
    if _is_count(phase):
        return FreezePolicy(unfreeze_layers=[*range(-phase, 0)])
    if not isinstance(phase, Mapping):
        raise ValueError(
            f'{where} is {phase!r}; it must be a number of layers or a dict of settings'
        )
    allowed = [field.name for field in dataclasses.fields(FreezePolicy)]
    unknown = [setting for setting in phase if setting not in allowed]
    if unknown:
        raise ValueError(f'{where} has unknown settings {unknown}; allowed: {", ".join(allowed)}')
    return FreezePolicy(**phase)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _audits(runner: Runner) -> list[FreezeAuditHook]:
    return [hook for hook in runner.hooks if isinstance(hook, FreezeAuditHook)]


def _wrap_anew(runner: Runner) -> None:
    """Wrap the model as the Runner did, in a wrapper that knows what is trainable now."""
    if isinstance(runner.model, DistributedDataParallel):
        wrapper = runner.cfg.get('model_wrapper_cfg')
        runner.model = runner.wrap_model(wrapper, runner.model.module)
        runner._maybe_compile('train_step')  # the old wrapper's was compiled
