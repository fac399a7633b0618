"""What the audit of a run will find, from its config alone: nothing is trained or written."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mmdet3d.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

from . import audit
from .audit import Frozen, LoadWatch, Violation
from .audit_hook import FreezeAuditHook
from .building import freeze, preview
from .members import keep_trainable
from .report import describe_filled, describe_frozen, describe_violations
from .schedule import plan_rates
from .table import Row, align, by_part, format_table, part_names, rows
from .unfreeze_hook import UnfreezeScheduleHook

_OF_MIXED_PRECISION = ('type', 'dtype', 'loss_scale', 'use_fsdp')


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found.

    Attributes:
        model: as it would be trained, in training mode.
        frozen: what is frozen in it.
        filled: source of each tensor that a checkpoint filled.
        table: parameters and learning rates over the run, by module.
        optimizer: number of its ``groups``, of the ``trainable`` and ``frozen`` tensors in them,
            and of trainable ones ``left_out``.
        violations: what would stop the run.
    """

    model: nn.Module
    frozen: Frozen
    filled: Mapping[str, str]
    table: list[Row]
    optimizer: Mapping[str, int]
    violations: list[Violation]

    def describe(self) -> dict:
        """Plain data, with the names that the report of a run has."""
        return {
            'state': 'violated' if self.violations else 'passed',
            **describe_frozen(self.frozen, self.table),
            **describe_filled(self.frozen, self.filled),
            'optimizer': dict(self.optimizer),
            'violations': describe_violations(self.violations),
        }

    def __str__(self) -> str:
        modules = self.frozen.modules.values()
        evaluating = sum(not module.training for module in modules)
        return '\n\n'.join(
            [
                f'parameters by module:\n{format_table(self.table)}',
                f'frozen tensors that a checkpoint filled:\n{self._sources()}',
                'optimizer: {groups} groups of {trainable} trainable and {frozen} frozen tensors; '
                'in no group: {left_out} trainable ones'.format(**self.optimizer),
                'in evaluation mode after train(): '
                f'{evaluating} of the {len(modules)} modules that must be',
            ]
        )

    def _sources(self) -> str:
        lines = [('module', 'frozen', 'filled', 'by')]
        for part, names in by_part(self.frozen.loadable, part_names(self.model)).items():
            sources = [self.filled[name] for name in names if name in self.filled]
            by = ', '.join(dict.fromkeys(sources)) or '-'
            lines.append((part, str(len(names)), str(len(sources)), by))
        return align(lines)


def verify(cfg: Config, *, epoch_length: int) -> Verification:
    """Build model, optimizer and schedule as a Runner does, load the checkpoint, and check them.

    Args:
        cfg: of a run, with ``load_from``. Of a :class:`FreezeAuditHook` in ``custom_hooks`` the
            option `allow_unfilled` counts, and of an :class:`UnfreezeScheduleHook` the phase of
            epoch 0.
        epoch_length: iterations an epoch.

    Raises:
        ValueError: a freezing policy, a key of ``custom_keys`` or the length of the run does not
            fit; the message is that of the part that refuses it.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = MODELS.build(cfg.model)
        filled = _fill(model, cfg.get('load_from'))
        # Before the optimizer's groups change in any way: a scheduler hides what it overrides.
        optim_wrapper = build_optim_wrapper(model, _in_full_precision(cfg.optim_wrapper))
        rates, faults = plan_rates(
            optim_wrapper, cfg.get('param_scheduler'), epoch_length=epoch_length, **_length(cfg)
        )
        hooks = _freezing_hooks(cfg)
    for hook in hooks:
        if isinstance(hook, UnfreezeScheduleHook):
            _begin(hook, model, optim_wrapper)
    patterns = [p for h in hooks if isinstance(h, FreezeAuditHook) for p in h.allow_unfilled]
    allowed = audit.matching_modules(model, patterns)
    model.train()
    frozen = audit.find_frozen(model)
    return Verification(
        model=model,
        frozen=frozen,
        filled=filled,
        table=rows(model, rates),
        optimizer=_count(model, frozen, optim_wrapper),
        violations=[
            *audit.check_filled(model, frozen, filled, allowed),
            *audit.check_parameters(frozen, optim_wrapper),
            *audit.check_modes(frozen),
            *audit.check_rates(faults),
        ],
    )


def _fill(model: nn.Module, checkpoint: str | None) -> dict[str, str]:
    """Initialise and load as ``Runner.train`` does; source of each tensor that was filled."""
    watch = LoadWatch(model, source='init_cfg')
    if hasattr(model, 'init_weights'):
        with _only_warnings():  # mmengine tells of every single parameter
            model.init_weights()
    if checkpoint:
        watch.source = checkpoint
        load_checkpoint(model, checkpoint, map_location='cpu')
    watch.close()
    return watch.filled(model)


@contextmanager
def _only_warnings() -> Iterator[None]:
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _in_full_precision(config: Mapping) -> Mapping:
    """Mixed precision needs a GPU to be built, and changes nothing of what is checked."""
    if config.get('type') != 'AmpOptimWrapper':
        return config
    return {name: value for name, value in config.items() if name not in _OF_MIXED_PRECISION}


def _length(cfg: Config) -> dict[str, int]:
    names = ('max_epochs', 'max_iters')
    return {name: cfg.train_cfg[name] for name in names if name in cfg.train_cfg}


def _freezing_hooks(cfg: Config) -> list[FreezeAuditHook | UnfreezeScheduleHook]:
    """Those of the config that say what is frozen, or what may stay unfilled."""
    wanted = {FreezeAuditHook.__name__, UnfreezeScheduleHook.__name__}
    configs = cfg.get('custom_hooks') or []
    return [HOOKS.build(c) for c in configs if str(c['type']).rsplit('.', 1)[-1] in wanted]


def _begin(schedule: UnfreezeScheduleHook, model: nn.Module, optim_wrapper: OptimWrapper) -> None:
    """Freeze as the first phase of a schedule does; all phases must fit."""
    module = model.get_submodule(schedule.module)
    for policy in schedule.policies.values():
        preview(module, policy, name=schedule.module)
    freeze(module, schedule.policies[0], name=schedule.module)
    keep_trainable(optim_wrapper.optimizer)


def _count(
    model: nn.Module, frozen: Frozen, optim_wrapper: OptimWrapper | OptimWrapperDict
) -> dict[str, int]:
    """Parameters that an optimizer holds, by tensors."""
    wrappers = (
        optim_wrapper.values() if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
    )
    groups = [group for wrapper in wrappers for group in wrapper.optimizer.param_groups]
    held = {id(parameter) for group in groups for parameter in group['params']}
    trainable = {id(p) for p in model.parameters()} - frozen.names_by_id.keys()
    return {
        'groups': len(groups),
        'trainable': len(held & trainable),
        'frozen': len(held & frozen.names_by_id.keys()),
        'left_out': len(trainable - held),
    }
