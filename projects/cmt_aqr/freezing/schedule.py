"""The learning rate that every parameter group gets over a run, found by running its schedulers.

A scheduler may undo the rates of single modules without a word: with an absolute ``eta_min`` all
groups end at one rate, a group with ``lr_mult=0`` included, and ``OneCycleLR`` gives all groups one
rate from the first step on. Which scheduler does so is seen from the rates, not from its name.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

BASE = '(base)'
"""Name of the rate that a multiplier of 1 stands for."""

# Of the rate due: schedulers work recursively and collect rounding errors. Of the highest rate due:
# a cosine to 0 ends in nothing but rounding errors.
_RELATIVE_TOLERANCE = 1e-3
_ABSOLUTE_TOLERANCE = 1e-9

# Of OneCycleLR and ReduceOnPlateauLR: a list has one value for each group.
_OPTIONS_BY_GROUP = ('eta_max', 'min_value')


class RateSummary(NamedTuple):
    """The learning rate of a group over a run; ``None`` where only the start is known."""

    start: float
    lowest: float | None = None
    highest: float | None = None
    end: float | None = None


class RatePlan(NamedTuple):
    """What a run will do to the learning rates.

    Attributes:
        rates: of each parameter by its ``id``.
        faults: what :func:`check_schedule` has to say against it.
    """

    rates: dict[int, RateSummary]
    faults: list[str]


class Deviation(NamedTuple):
    """Where a group's rate is furthest from the one due."""

    group: str
    due: float
    found: float
    iteration: int
    rate: float

    def __str__(self) -> str:
        return (
            f'group {self.group!r} is due {self.due:g} times the base rate, but gets '
            f'{self.found:.3g} times ({self.rate:.3g}) in iteration {self.iteration}'
        )


def summarize(rates: Mapping[str, np.ndarray]) -> dict[str, RateSummary]:
    """Shorten what :func:`simulate` gives."""
    return {
        name: RateSummary(*map(float, (rate[0], rate.min(), rate.max(), rate[-1])))
        for name, rate in rates.items()
    }


def simulate(
    param_groups: Sequence[Mapping],
    param_scheduler: Mapping | Sequence[Mapping] | None,
    *,
    epoch_length: int,
    max_epochs: int | None = None,
    max_iters: int | None = None,
) -> dict[str, np.ndarray]:
    """Learning rate of every group in every iteration of a run.

    mmengine's own schedulers are built and stepped as its Runner does, every iteration of the run
    and all groups at once; 70,000 iterations take about a second, also where every parameter has a
    group of its own. ``ReduceOnPlateauLR`` sees, every ``epoch_length`` iterations, a score that
    never improves.

    Args:
        param_groups: of the optimizer, before or after schedulers were built on it. Used are
            ``name`` (``group 3`` if missing), ``lr`` or ``initial_lr``, and ``lr_mult`` (if
            missing, as the rates say, of which that of the first group counts as the base).
        param_scheduler: as in a config.
        epoch_length: iterations an epoch.
        max_epochs: length of a run by epochs, or
        max_iters: of a run by iterations, in which mmengine steps no scheduler by epoch.

    Returns:
        (iterations,) for each group by name, and for the base rate as :data:`BASE`.

    Raises:
        TypeError: a scheduler that is built already, and so bound to its own optimizer.
        ValueError: not one of ``max_epochs`` and ``max_iters``; a run without iterations; two
            groups of one name.
    """
    _check_length(epoch_length, max_epochs, max_iters)
    configs = _as_list(param_scheduler)
    names = _names(param_groups)
    leaders = _leaders(param_groups, configs)
    distinct = sorted(set(leaders))
    optim_wrapper = _stand_in([param_groups[i] for i in distinct], _base_lr(param_groups))
    ends = {True: max_epochs or 1, False: max_iters or max_epochs * epoch_length}
    schedulers = [
        _build(config, optim_wrapper, ends=ends, epoch_length=epoch_length) for config in configs
    ]
    # An optimizer that never stepped would make the schedulers warn.
    optim_wrapper.step()

    schedulers = [scheduler for scheduler in schedulers if scheduler.param_name == 'lr']
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch and max_epochs]
    by_score = [scheduler for scheduler in schedulers if hasattr(scheduler, 'need_val_args')]
    groups = optim_wrapper.param_groups
    rates = np.empty((ends[False], len(groups)))
    for iteration, row in enumerate(rates):
        row[:] = [group['lr'] for group in groups]
        for scheduler in by_iteration:
            scheduler.step()
        if (iteration + 1) % epoch_length == 0:
            for scheduler in by_epoch:
                scheduler.step()
            for scheduler in by_score:
                scheduler.step({scheduler.monitor: 0.0})
    *columns, base = rates.T
    by_leader = dict(zip(distinct, columns, strict=True))
    return {**dict(zip(names, map(by_leader.get, leaders), strict=True)), BASE: base}


def check_schedule(
    param_groups: Sequence[Mapping],
    param_scheduler: Mapping | Sequence[Mapping] | None,
    *,
    epoch_length: int,
    max_epochs: int | None = None,
    max_iters: int | None = None,
) -> dict[str, np.ndarray]:
    """Check that every group keeps ``lr_mult`` times the base rate over the whole run.

    Schedulers of anything but the learning rate are left alone.

    Args and returns: as :func:`simulate`.

    Raises:
        ValueError: names the schedulers that break the ratio, a group and the remedy.
    """
    length = dict(epoch_length=epoch_length, max_epochs=max_epochs, max_iters=max_iters)
    rates = simulate(param_groups, param_scheduler, **length)
    fault = _fault(rates, param_groups, param_scheduler, length)
    if fault is not None:
        raise ValueError(fault)
    return rates


def plan_rates(
    optim_wrapper: OptimWrapper | OptimWrapperDict,
    param_scheduler: Mapping | Sequence[Mapping] | None,
    *,
    epoch_length: int,
    max_epochs: int | None = None,
    max_iters: int | None = None,
) -> RatePlan:
    """Simulate and check the schedule of a run, of each of its optimizers.

    Args:
        optim_wrapper: before or after schedulers were built on it.
        param_scheduler: as in a config; for several optimizers one for all, or a dict by name.
        epoch_length: as :func:`simulate`, and so the others.

    Raises:
        TypeError, ValueError: as :func:`simulate`.
    """
    length = dict(epoch_length=epoch_length, max_epochs=max_epochs, max_iters=max_iters)
    rates, faults = {}, []
    for groups, config in _by_optimizer(optim_wrapper, param_scheduler):
        found = simulate(groups, config, **length)
        fault = _fault(found, groups, config, length)
        faults += [] if fault is None else [fault]
        summaries = summarize(found)
        for name, group in zip(_names(groups), groups, strict=True):
            rates.update((id(parameter), summaries[name]) for parameter in group['params'])
    return RatePlan(rates, faults)


def plan_of_start(optim_wrapper: OptimWrapper | OptimWrapperDict) -> RatePlan:
    """What is known of a run whose schedulers cannot be simulated: the rates at its start."""
    groups = [group for groups, _ in _by_optimizer(optim_wrapper, None) for group in groups]
    return RatePlan({id(p): RateSummary(g['lr']) for g in groups for p in g['params']}, [])


def _by_optimizer(
    optim_wrapper: OptimWrapper | OptimWrapperDict,
    param_scheduler: Mapping | Sequence[Mapping] | None,
) -> Iterator[tuple[list[dict], Mapping | Sequence[Mapping] | None]]:
    """Groups and schedule of each optimizer, as ``Runner.build_param_scheduler`` shares them."""
    if not isinstance(optim_wrapper, OptimWrapperDict):
        yield optim_wrapper.optimizer.param_groups, param_scheduler
        return
    by_name = isinstance(param_scheduler, Mapping) and 'type' not in param_scheduler
    for name, wrapper in optim_wrapper.items():
        config = param_scheduler[name] if by_name else param_scheduler
        yield wrapper.optimizer.param_groups, config


def _fault(
    rates: Mapping[str, np.ndarray],
    param_groups: Sequence[Mapping],
    param_scheduler: Mapping | Sequence[Mapping] | None,
    length: Mapping[str, int | None],
) -> str | None:
    """Which schedulers break the ratios, for a group each, and the remedy."""
    multipliers = _multipliers(param_groups)
    deviation = _worst(rates, multipliers)
    if deviation is None:
        return None
    base_lr = _base_lr(param_groups)
    lines = []
    for index, config in enumerate(_as_list(param_scheduler)):
        found = _worst(simulate(param_groups, config, **length), multipliers)
        if found is not None:
            kind = _type_name(config)
            lines.append(f'param_scheduler[{index}], {kind}: {found}; {_remedy(config, base_lr)}')
    return 'the schedule overrides the learning rates of parameter groups\n' + '\n'.join(
        lines or [str(deviation)]
    )


def _worst(rates: Mapping[str, np.ndarray], multipliers: Mapping[str, float]) -> Deviation | None:
    """The first group that does not keep its multiplier, at its worst."""
    base = rates[BASE]
    for name, multiplier in multipliers.items():
        due = multiplier * base
        excess = np.abs(rates[name] - due) - _RELATIVE_TOLERANCE * due
        if (excess <= _ABSOLUTE_TOLERANCE * due.max()).all():
            continue
        ratio = rates[name] / np.maximum(base, np.finfo(float).tiny)
        worst = int(np.argmax(np.where(excess > 0, np.abs(ratio - multiplier), -1)))
        return Deviation(name, multiplier, float(ratio[worst]), worst, float(rates[name][worst]))
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
        return f'use eta_min_ratio={eta_min / base_lr:g} in place of eta_min={eta_min:g}'
    return (
        f'use eta_min=0 in place of eta_min={eta_min:g}, or CosineAnnealingLR with '
        f'eta_min_ratio={eta_min / base_lr:g}'
    )


def _check_length(epoch_length: int, max_epochs: int | None, max_iters: int | None) -> None:
    if (max_epochs is None) == (max_iters is None):
        raise ValueError(
            f'max_epochs is {max_epochs} and max_iters is {max_iters}; give one of them'
        )
    lengths = dict(epoch_length=epoch_length, max_epochs=max_epochs, max_iters=max_iters)
    for name, length in lengths.items():
        if length is not None and length < 1:
            raise ValueError(f'{name} is {length}; it must be 1 or greater')


def _as_list(param_scheduler: Mapping | Sequence[Mapping] | None) -> list[Mapping]:
    if param_scheduler is None:
        return []
    configs = [*param_scheduler] if isinstance(param_scheduler, Sequence) else [param_scheduler]
    for config in configs:
        if not isinstance(config, Mapping):
            raise TypeError(f'{config!r} cannot be simulated; give the config of a scheduler')
    return configs


def _type_name(config: Mapping) -> str:
    """Of a scheduler, named or given as a class, without its scope."""
    kind = config['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def _names(param_groups: Sequence[Mapping]) -> list[str]:
    names = [group.get('name', f'group {index}') for index, group in enumerate(param_groups)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'parameter groups must have different names; there are two of {twice}')
    return names


def _start(group: Mapping) -> float:
    """The rate before any scheduler; they keep it when they are built."""
    return group.get('initial_lr', group['lr'])


def _base_lr(param_groups: Sequence[Mapping]) -> float:
    """The rate that a multiplier of 1 stands for; a rate of 0 does not tell."""
    for group in param_groups:
        if _start(group) > 0:
            return _start(group) / group.get('lr_mult', 1.0)
    raise ValueError('every parameter group has a learning rate of 0')


def _multipliers(param_groups: Sequence[Mapping]) -> dict[str, float]:
    base_lr = _base_lr(param_groups)
    multipliers = [group.get('lr_mult', _start(group) / base_lr) for group in param_groups]
    return dict(zip(_names(param_groups), multipliers, strict=True))


def _leaders(param_groups: Sequence[Mapping], configs: Sequence[Mapping]) -> list[int]:
    """Of each group, the first that goes the same way; mmengine makes one group a parameter."""
    by_group = any(isinstance(c.get(k), Sequence) for c in configs for k in _OPTIONS_BY_GROUP)
    if by_group:
        return [*range(len(param_groups))]
    first: dict[float, int] = {}
    return [first.setdefault(_start(group), i) for i, group in enumerate(param_groups)]


def _stand_in(param_groups: Sequence[Mapping], base_lr: float) -> OptimWrapper:
    """An optimizer wrapper with the rates of ``param_groups``, on numbers of its own."""
    groups = [
        {'params': [nn.Parameter(torch.zeros(1))], 'lr': _start(group)} for group in param_groups
    ]
    optim_wrapper = OptimWrapper(torch.optim.AdamW(groups, lr=base_lr))
    # mmengine itself schedules a base rate beside the groups, but only if there are several.
    if optim_wrapper.base_param_settings is None:
        optim_wrapper.base_param_settings = {**optim_wrapper.optimizer.defaults}
    return optim_wrapper


def _build(
    config: Mapping, optim_wrapper: OptimWrapper, *, ends: Mapping[bool, int], epoch_length: int
) -> _ParamScheduler:
    """As ``Runner.build_param_scheduler`` does."""
    config = copy.deepcopy(config)
    config.setdefault('end', ends[config.get('by_epoch', True)])
    defaults = dict(optimizer=optim_wrapper, epoch_length=epoch_length)
    return PARAM_SCHEDULERS.build(config, default_args=defaults)
