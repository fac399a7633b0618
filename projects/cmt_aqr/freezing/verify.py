"""The audit of a run from its config alone; nothing is trained or written."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mmdet3d.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

from ..markdown import align
from . import audit
from .audit import Frozen, Violation
from .audit_hook import FreezeAuditHook
from .load_watch import LoadWatch
from .names import by_part, matching_submodules, part_names
from .report import Row, describe, format_table, make_table
from .schedule import RunLength, plan_rates
from .unfreeze_hook import UnfreezeScheduleHook

_MIXED_PRECISION_OPTIONS = ('type', 'dtype', 'loss_scale', 'use_fsdp')


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Findings of :func:`verify`."""

    model: nn.Module
    """in training mode"""
    frozen: Frozen
    filled: Mapping[str, str]
    """source of each tensor that a checkpoint filled"""
    table: list[Row]
    """parameters and learning rates over the run, by module"""
    optimizer: Mapping[str, int]
    """number of ``groups``, of ``trainable`` and ``frozen`` tensors in them, and of trainable
    tensors ``left_out``"""
    violations: list[Violation]
    """the violations that would stop the run"""

    def describe(self) -> dict:
        """Plain data, with the keys of a run's report."""
        return {
            'state': 'violated' if self.violations else 'passed',
            **describe(self.frozen, self.filled, self.table),
            'optimizer': dict(self.optimizer),
            'violations': [violation.describe() for violation in self.violations],
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
                f'in evaluation mode after train(): {evaluating} of the {len(modules)} modules '
                'that must be',
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
        cfg: config of a run, with ``load_from``. Of its hooks, `allow_unfilled` of a
            :class:`FreezeAuditHook` and epoch 0 of an :class:`UnfreezeScheduleHook` are considered.
        epoch_length: iterations per epoch.

    Raises:
        ValueError: a freezing policy, a key of ``custom_keys`` or the length of the run is invalid.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = MODELS.build(cfg.model)
        filled = _fill(model, cfg.get('load_from'))
        optim_wrapper = build_optim_wrapper(model, _in_full_precision(cfg.optim_wrapper))
        # Before groups change: afterwards a rate would be missing for what a hook freezes.
        groups = optim_wrapper.optimizer.param_groups
        names = ('max_epochs', 'max_iters')
        length = {name: cfg.train_cfg[name] for name in names if name in cfg.train_cfg}
        if len(length) != 1:
            raise ValueError(f'train_cfg has {length}; it must have one of {", ".join(names)}')
        rates, fault = plan_rates(
            groups, cfg.get('param_scheduler'), RunLength(epoch_length=epoch_length, **length)
        )
        hooks = _freezing_hooks(cfg)
    patterns = []
    for hook in hooks:
        if isinstance(hook, UnfreezeScheduleHook):
            hook.begin_first_phase(model, optim_wrapper)
        else:
            patterns += hook.allow_unfilled
    allowed = matching_submodules(model, patterns, option='allow_unfilled')
    model.train()
    frozen = audit.find_frozen(model)
    return Verification(
        model=model,
        frozen=frozen,
        filled=filled,
        table=make_table(model, rates),
        optimizer=_count(model, frozen, groups),
        violations=[
            *audit.check_filled(model, frozen, filled, allowed),
            *audit.check_parameters(frozen, optim_wrapper),
            *audit.check_modes(frozen),
            *audit.check_rates(fault),
        ],
    )


def _fill(model: nn.Module, checkpoint: str | None) -> dict[str, str]:
    """Initialise and load as ``Runner.train`` does; the source of each filled tensor."""
    watch = LoadWatch(model, source='init_cfg')
    if hasattr(model, 'init_weights'):
        with _only_warnings():  # mmengine logs every single parameter
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
    """The wrapper without mixed precision, which needs a GPU to be built and affects no check."""
    if config.get('type') != 'AmpOptimWrapper':
        return config
    return {name: value for name, value in config.items() if name not in _MIXED_PRECISION_OPTIONS}


def _freezing_hooks(cfg: Config) -> list[FreezeAuditHook | UnfreezeScheduleHook]:
    wanted = {FreezeAuditHook.__name__, UnfreezeScheduleHook.__name__}
    configs = cfg.get('custom_hooks') or []
    return [HOOKS.build(c) for c in configs if str(c['type']).rsplit('.', 1)[-1] in wanted]


def _count(model: nn.Module, frozen: Frozen, groups: Sequence[Mapping]) -> dict[str, int]:
    """Number of groups, and of tensors inside and outside of them."""
    optimized = {id(parameter) for group in groups for parameter in group['params']}
    trainable = {id(p) for p in model.parameters()} - frozen.names_by_id.keys()
    return {
        'groups': len(groups),
        'trainable': len(optimized & trainable),
        'frozen': len(optimized & frozen.names_by_id.keys()),
        'left_out': len(trainable - optimized),
    }
