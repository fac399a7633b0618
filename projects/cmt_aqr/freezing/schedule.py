"""Learning rates of all parameter groups over a run, obtained by running the schedulers.

A scheduler can silently undo the rates of single modules: with an absolute ``eta_min`` all groups
end at the same rate, even one with ``lr_mult=0``, and ``OneCycleLR`` gives all groups the same rate
from the first step on. Such schedulers are recognised by their rates, not by their names.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

BASE = '(base)'
"""Key of the rate that a multiplier of 1 stands for."""

# Tolerance relative to the expected rate: schedulers work recursively and accumulate rounding
# errors. Tolerance relative to its maximum: a cosine to 0 ends in rounding errors alone.
_RELATIVE_TOLERANCE = 1e-3
_ABSOLUTE_TOLERANCE = 1e-9

Schedule = Mapping | Sequence[Mapping] | None
"""``param_scheduler`` of a config."""


class RunLength(NamedTuple):
    """Length of a run, either by epochs or by iterations."""

    epoch_length: int
    """iterations per epoch"""
    max_epochs: int | None = None
    max_iters: int | None = None
    """in a run by iterations, mmengine steps no scheduler by epoch"""

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return self.max_iters or self.max_epochs * self.epoch_length


class RateSummary(NamedTuple):
    """The learning rate of a group over a run; only the start is known without a schedule."""

    start: float
    highest: float | None = None
    end: float | None = None


def simulate(
    param_groups: Sequence[Mapping], param_scheduler: Schedule, length: RunLength
) -> dict[str, np.ndarray]:
    """Learning rate of every group in every iteration of a run.

    mmengine's schedulers are built and stepped as by its Runner, once for all groups of the same
    rate; 70,000 iterations take about a second. ``ReduceOnPlateauLR`` sees a constant score every
    ``epoch_length`` iterations.

    Args:
        param_groups: groups of the optimizer, before or after schedulers were built on it. Read are
            ``name`` (default: ``group <index>``), ``lr`` or ``initial_lr``, and ``lr_mult``
            (default: the ratio to the base rate, which is then that of the first group).
        param_scheduler: the schedulers of a config.
        length: length of the run.

    Returns:
        (iterations,) for each group by name, and for the base rate by :data:`BASE`.

    Raises:
        TypeError: a scheduler is already built, and so bound to its own optimizer.
        ValueError: two groups have the same name, or all have a rate of 0.
    """
    configs = _as_list(param_scheduler)
    distinct = [*dict.fromkeys(map(_start, param_groups))]
    optim_wrapper = _stand_in(distinct, _base_lr(param_groups))
    schedulers = [_build(config, optim_wrapper, length) for config in configs]
    optim_wrapper.step()  # schedulers warn about an optimizer that never stepped

    schedulers = [scheduler for scheduler in schedulers if scheduler.param_name == 'lr']
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch and length.max_epochs]
    by_score = [scheduler for scheduler in schedulers if hasattr(scheduler, 'need_val_args')]
    groups = optim_wrapper.param_groups
    rates = np.empty((length.iterations, len(groups)))
    for iteration, row in enumerate(rates):
        row[:] = [group['lr'] for group in groups]
        for scheduler in by_iteration:
            scheduler.step()
        if (iteration + 1) % length.epoch_length == 0:
            for scheduler in by_epoch:
                scheduler.step()
            for scheduler in by_score:
                scheduler.step({scheduler.monitor: 0.0})
    *columns, base = rates.T
    by_start = dict(zip(distinct, columns, strict=True))
    named = zip(_names(param_groups), param_groups, strict=True)
    return {**{name: by_start[_start(group)] for name, group in named}, BASE: base}


def check_schedule(
    param_groups: Sequence[Mapping], param_scheduler: Schedule, length: RunLength
) -> tuple[dict[str, np.ndarray], str | None]:
    """Simulated rates, and a message if a group does not keep ``lr_mult`` times the base rate.

    The message names every scheduler at fault, a group that it overrides, and the remedy.
    Arguments and errors are those of :func:`simulate`.
    """
    rates = simulate(param_groups, param_scheduler, length)
    multipliers = _multipliers(param_groups)
    deviation = _deviation(rates, multipliers)
    if deviation is None:
        return rates, None
    lines = []
    for index, config in enumerate(_as_list(param_scheduler)):
        found = _deviation(simulate(param_groups, config, length), multipliers)
        if found is not None:
            remedy = _remedy(config, _base_lr(param_groups))
            lines.append(f'param_scheduler[{index}], {_type_name(config)}: {found}; {remedy}')
    title = 'the schedule overrides the learning rates of parameter groups'
    return rates, '\n'.join([title, *(lines or [deviation])])


def plan_rates(
    param_groups: Sequence[Mapping], param_scheduler: Schedule, length: RunLength
) -> tuple[dict[int, RateSummary], str | None]:
    """Rates of each parameter by its ``id``, and the message of :func:`check_schedule`."""
    rates, fault = check_schedule(param_groups, param_scheduler, length)
    summaries = {}
    for name, group in zip(_names(param_groups), param_groups, strict=True):
        rate = rates[name]
        summary = RateSummary(float(rate[0]), float(rate.max()), float(rate[-1]))
        summaries.update((id(parameter), summary) for parameter in group['params'])
    return summaries, fault


def _deviation(rates: Mapping[str, np.ndarray], multipliers: Mapping[str, float]) -> str | None:
    """Message about the first group that does not keep its multiplier, at its largest deviation."""
    base = rates[BASE]
    for name, multiplier in multipliers.items():
        expected = multiplier * base
        excess = np.abs(rates[name] - expected) - _RELATIVE_TOLERANCE * expected
        if (excess <= _ABSOLUTE_TOLERANCE * expected.max()).all():
            continue
        ratio = rates[name] / np.maximum(base, np.finfo(float).tiny)
        worst = int(np.argmax(np.where(excess > 0, np.abs(ratio - multiplier), -1)))
        return (
            f'group {name!r} should get {multiplier:g} times the base rate, but gets '
            f'{ratio[worst]:.3g} times ({rates[name][worst]:.3g}) in iteration {worst}'
        )
    return None


def _remedy(config: Mapping, base_lr: float) -> str:
    kind = _type_name(config)
    if kind == 'OneCycleLR':
        return (
            'use two CosineAnnealingLR with eta_min_ratio, one up and one down, as in '
            'configs/_base_/schedules/cmt_20e.py'
        )
    if kind == 'ReduceOnPlateauLR':
        return 'use min_value=0 and eps=0'
    if config.get('eta_min') is None:
        return 'use a scheduler that changes the rate of every group by the same factor'
    eta_min = config['eta_min']
    if kind.startswith('Cosine'):
        return f'use eta_min_ratio={eta_min / base_lr:g} instead of eta_min={eta_min:g}'
    return (
        f'use eta_min=0 instead of eta_min={eta_min:g}, or CosineAnnealingLR with '
        f'eta_min_ratio={eta_min / base_lr:g}'
    )


def _as_list(param_scheduler: Schedule) -> list[Mapping]:
    is_one = isinstance(param_scheduler, Mapping)
    configs = [param_scheduler] if is_one else [*(param_scheduler or [])]
    for config in configs:
        if not isinstance(config, Mapping):
            raise TypeError(f'{config!r} cannot be simulated; give the config of a scheduler')
    return configs


def _type_name(config: Mapping) -> str:
    """Class name of a scheduler, without its scope."""
    kind = config['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def _names(param_groups: Sequence[Mapping]) -> list[str]:
    names = [group.get('name', f'group {index}') for index, group in enumerate(param_groups)]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(f'names of parameter groups must be unique; duplicated: {duplicates}')
    return names


def _start(group: Mapping) -> float:
    """The rate before any scheduler, which a built scheduler stores in the group."""
    return group.get('initial_lr', group['lr'])


def _base_lr(param_groups: Sequence[Mapping]) -> float:
    """The rate that a multiplier of 1 stands for, from the first group with a rate above 0."""
    for group in param_groups:
        if _start(group) > 0:
            return _start(group) / group.get('lr_mult', 1.0)
    raise ValueError('every parameter group has a learning rate of 0')


def _multipliers(param_groups: Sequence[Mapping]) -> dict[str, float]:
    base_lr = _base_lr(param_groups)
    multipliers = [group.get('lr_mult', _start(group) / base_lr) for group in param_groups]
    return dict(zip(_names(param_groups), multipliers, strict=True))


def _stand_in(rates: Sequence[float], base_lr: float) -> OptimWrapper:
    """An optimizer wrapper with a group of each rate and placeholder parameters."""
    groups = [{'params': [nn.Parameter(torch.zeros(1))], 'lr': rate} for rate in rates]
    optim_wrapper = OptimWrapper(torch.optim.AdamW(groups, lr=base_lr))
    # mmengine schedules a base rate beside the groups, but only if there are several groups.
    if optim_wrapper.base_param_settings is None:
        optim_wrapper.base_param_settings = {**optim_wrapper.optimizer.defaults}
    return optim_wrapper


def _build(config: Mapping, optim_wrapper: OptimWrapper, length: RunLength) -> _ParamScheduler:
    """Build a scheduler as ``Runner.build_param_scheduler`` does."""
    by_epoch = config.get('by_epoch', True)
    config = copy.deepcopy(config)
    config.setdefault('end', (length.max_epochs or 1) if by_epoch else length.iterations)
    defaults = dict(optimizer=optim_wrapper, epoch_length=length.epoch_length)
    return PARAM_SCHEDULERS.build(config, default_args=defaults)
