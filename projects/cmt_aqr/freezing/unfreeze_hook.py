"""Hook that unfreezes and freezes a module by a schedule of epochs."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..running_hooks import unwrap
from .audit_hook import FreezeAuditHook
from .freeze_handle import freeze, handle_of, preview
from .names import is_within
from .optimizer_membership import keep_trainable, members
from .policy import FreezePolicy, FrozenNames


@HOOKS.register_module()
class UnfreezeScheduleHook(Hook):
    """Changes the frozen part of a module at the start of epochs.

    The model's config must not freeze anything that the schedule trains later. The optimizer then
    has the groups of all phases, each with the rate of its key, and a parameter is in its group
    while it trains, see :mod:`~projects.cmt_aqr.freezing.optimizer_membership`. A checkpoint of any
    phase resumes in the phase that is due. A module without a key in ``custom_keys`` learns at the
    base rate, which is high for a trained backbone. A :class:`FreezeAuditHook` of the run is
    informed.

    The following trains the last layer from epoch 3, the last two from epoch 10, and everything
    including the stem from epoch 15, in a config whose base freezes the module::

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
        module: dotted name in the model. Another module may have its own hook.
        schedule: phases by the epoch in which they begin, counted from 0 and including 0. A phase
            is a dict of :class:`FreezePolicy` settings, or the number of layers that train, counted
            from the output. Of the model's config, only `norm_eval` holds in all phases.

    Raises:
        ValueError: the schedule has another form, or, before training: the model has no such
            module; the run ends before a phase; a policy does not fit the module; a parameter to
            train is not in the optimizer; no phase trains anything; a module has two schedules; the
            run is by iterations, has several optimizers, or a model wrapper other than
            ``DistributedDataParallel``.
    """

    # Before the audit, which records the frozen parts at the start.
    priority = 'HIGHEST'

    def __init__(self, *, module: str, schedule: Mapping[int, int | Mapping[str, Any]]) -> None:
        self.module = module
        self.policies = _read_schedule(schedule, module)
        self._frozen: dict[int, FrozenNames] = {}
        self._phase: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Check all phases and begin the one that is due, which may be any in a resumed run."""
        self._check_runner(runner)
        self._check_phases(runner.optim_wrapper, self._find_module(runner))
        self._begin(runner, max(epoch for epoch in self.policies if epoch <= runner.epoch))

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin the phase of this epoch, if there is one."""
        if runner.epoch == self._phase or runner.epoch not in self.policies:
            return
        self._begin(runner, runner.epoch)
        for audit in _audits(runner):
            audit.rebase(runner)

    def begin_first_phase(self, model: nn.Module, optim_wrapper: OptimWrapper) -> None:
        """Check all phases and begin that of epoch 0, without a Runner."""
        module = model.get_submodule(self.module)
        self._check_phases(optim_wrapper, module)
        freeze(module, self.policies[0], name=self.module)
        keep_trainable(optim_wrapper.optimizer)

    def _begin(self, runner: Runner, epoch: int) -> None:
        self._phase = epoch
        module = self._find_module(runner)
        freeze(module, self.policies[epoch], name=self.module)
        keep_trainable(runner.optim_wrapper.optimizer)
        _wrap_again(runner)
        for audit in _audits(runner):
            audit.note_trained(self._trained_before(epoch, module))
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        total = sum(p.numel() for p in module.parameters())
        print_log(
            f'{self.module}: {trainable:,} of {total:,} parameters train from epoch {epoch}',
            logger='current',
        )

    def _trained_before(self, epoch: int, module: nn.Module) -> Iterator[str]:
        """Names of the tensors trained in earlier phases, including those before a resumed run."""
        earlier = [frozen for start, frozen in self._frozen.items() if start < epoch]
        for name in module.state_dict():
            if not all(frozen.covers(name) for frozen in earlier):
                yield f'{self.module}.{name}'

    def _find_module(self, runner: Runner) -> nn.Module:
        model = unwrap(runner.model)
        try:
            return model.get_submodule(self.module)
        except AttributeError:
            children = ', '.join(name for name, _ in model.named_children())
            raise ValueError(
                f'UnfreezeScheduleHook: module {self.module!r} is not in {type(model).__name__}, '
                f'which contains {children}'
            ) from None

    def _check_runner(self, runner: Runner) -> None:
        where = f'UnfreezeScheduleHook of {self.module}'
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(f'{where} counts epochs, but the run has only iterations')
        late = [epoch for epoch in self.policies if epoch >= runner.max_epochs]
        if late:
            raise ValueError(
                f'{where}: schedule has epoch {late[0]}, but the run ends after max_epochs '
                f'{runner.max_epochs}; allowed are 0 to {runner.max_epochs - 1}'
            )
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise ValueError(f'{where} needs a single optimizer, not an OptimWrapperDict')
        if is_model_wrapper(runner.model) and not isinstance(runner.model, DistributedDataParallel):
            raise ValueError(
                f'{where} cannot wrap a model in {type(runner.model).__name__} again; use '
                'MMDistributedDataParallel'
            )
        for other in runner.hooks:
            is_schedule = isinstance(other, UnfreezeScheduleHook) and other is not self
            if is_schedule and is_within(other.module, (self.module,)):
                raise ValueError(f'{where}: {other.module} has a second schedule; remove one')

    def _check_phases(self, optim_wrapper: OptimWrapper, module: nn.Module) -> None:
        """Check every phase against the module and the optimizer, so that none fails in the run.

        A module whose config sets ``norm_eval`` keeps it in all phases.
        """
        optimized = {id(parameter) for parameter in members(optim_wrapper.optimizer)}
        handle = handle_of(module)
        if handle is not None and handle.norm_eval:
            self.policies = {
                epoch: dataclasses.replace(policy, norm_eval=True)
                for epoch, policy in self.policies.items()
            }
        own = handle.frozen_parameters if handle is not None else []
        # Trainable apart from the module's own policy.
        candidates = [n for n, p in module.named_parameters() if p.requires_grad or n in own]
        trained = set()
        for epoch, policy in self.policies.items():
            try:
                self._frozen[epoch] = frozen = preview(module, policy, name=self.module)
            except ValueError as error:
                raise ValueError(f'UnfreezeScheduleHook, epoch {epoch}: {error}') from None
            trains = [name for name in candidates if not frozen.covers(name)]
            missing = [name for name in trains if id(module.get_parameter(name)) not in optimized]
            if missing:
                raise ValueError(
                    f'UnfreezeScheduleHook, epoch {epoch}: {len(missing)} parameters to train are '
                    f'not in the optimizer, for example {self.module}.{missing[0]}: remove the '
                    f"settings that freeze them from the model's config, and freeze {self.module} "
                    'by the schedule alone'
                )
            trained.update(trains)
        if not trained:
            raise ValueError(
                f'UnfreezeScheduleHook: no phase trains any part of {self.module}: it has no '
                'parameters, or they are frozen by other means than its own policy'
            )


def _read_schedule(schedule: object, module: str) -> dict[int, FreezePolicy]:
    """The policy of each phase, ordered by epoch."""
    where = f'UnfreezeScheduleHook of {module}: schedule'
    if not isinstance(schedule, Mapping):
        raise ValueError(f'{where} is {schedule!r}; it must be a dict of phases by epoch')
    invalid = [epoch for epoch in schedule if not _is_count(epoch)]
    if invalid:
        raise ValueError(f'{where} has epoch {invalid[0]!r}; it must be an integer, 0 or greater')
    if 0 not in schedule:
        raise ValueError(f'{where} has epochs {sorted(schedule)}; it must include epoch 0')
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


def _wrap_again(runner: Runner) -> None:
    """Rebuilds the DDP wrapper, whose reducer knows only what was trainable before."""
    if isinstance(runner.model, DistributedDataParallel):
        wrapper = runner.cfg.get('model_wrapper_cfg')
        runner.model = runner.wrap_model(wrapper, runner.model.module)
        runner._maybe_compile('train_step')  # compiled code belongs to the old wrapper
