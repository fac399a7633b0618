"""A table of a model's parameters by module: what is frozen, and what learns how fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .layers import is_within
from .schedule import RateSummary

_HEAD = ('module', 'frozen', 'trainable', 'frozen MB', 'trainable MB')
_MOMENTS = ('start', 'highest', 'end')


@dataclass(frozen=True, kw_only=True)
class PartRates:
    """Learning rates of a part over a run, each the lowest and highest among its parameters.

    Attributes:
        start: in the first iteration.
        highest: at the peak of the schedule; ``None`` where the schedule is not known.
        end: in the last iteration; ``None`` as before.
    """

    start: tuple[float, float]
    highest: tuple[float, float] | None
    end: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """Parameters of one part of the model.

    Attributes:
        part: its name.
        frozen: numbers in frozen parameters.
        trainable: numbers in the others.
        frozen_mb: size of the frozen ones in megabytes (10^6 bytes).
        trainable_mb: size of the others.
        rate: learning rates of the trainable ones; ``None`` where none has any.
        without_rate: names of trainable parameters that no optimizer holds.
    """

    part: str
    frozen: int
    trainable: int
    frozen_mb: float
    trainable_mb: float
    rate: PartRates | None
    without_rate: tuple[str, ...]


def rows(model: nn.Module, rates: Mapping[int, RateSummary]) -> list[Row]:
    """Count the parameters of each part of the model.

    Args:
        model: not wrapped.
        rates: of each parameter by its ``id``, see :func:`.schedule.plan_rates`.
    """
    parameters = dict(model.named_parameters())
    parts = part_names(model)
    members = {**{part: [] for part in parts}, **by_part(parameters, parts)}
    return [_row(part, {n: parameters[n] for n in names}, rates) for part, names in members.items()]


def format_table(table: Sequence[Row]) -> str:
    """The rows as aligned text, with their sum."""
    cells = [
        (row.part, *_sizes(row.frozen, row.trainable, row.frozen_mb, row.trainable_mb), *_rate(row))
        for row in table
    ]
    sums = [sum(column) for column in zip(*map(_numbers, table), strict=True)] or [0, 0, 0.0, 0.0]
    head = (*_HEAD, *(f'rate: {moment}' if moment == 'start' else moment for moment in _MOMENTS))
    lines = [head, *cells, ('total', *_sizes(*sums), *('' for _ in _MOMENTS))]
    return align(lines)


def align(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    )


def part_names(model: nn.Module) -> list[str]:
    """Parts of the model that a table tells apart: its children, and those of its heads."""
    names: list[str] = []
    for name, child in model.named_children():
        inner = [f'{name}.{n}' for n, _ in child.named_children()] if name.endswith('head') else []
        names += inner or [name]
    return names


def by_part(names: Iterable[str], parts: Sequence[str]) -> dict[str, list[str]]:
    """Sort names of tensors by part; what lies in none counts as its outermost module."""
    sorted_names: dict[str, list[str]] = {}
    for name in names:
        part = next((p for p in parts if is_within(name, (p,))), name.partition('.')[0])
        sorted_names.setdefault(part, []).append(name)
    return sorted_names


def _row(
    part: str, parameters: Mapping[str, nn.Parameter], rates: Mapping[int, RateSummary]
) -> Row:
    frozen = [p for p in parameters.values() if not p.requires_grad]
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    found = [rates[id(p)] for p in trainable.values() if id(p) in rates]
    return Row(
        part=part,
        frozen=sum(p.numel() for p in frozen),
        trainable=sum(p.numel() for p in trainable.values()),
        frozen_mb=_megabytes(frozen),
        trainable_mb=_megabytes(trainable.values()),
        rate=_part_rates(found) if found else None,
        without_rate=tuple(name for name, p in trainable.items() if id(p) not in rates),
    )


def _part_rates(summaries: Sequence[RateSummary]) -> PartRates:
    return PartRates(**{moment: _span(summaries, moment) for moment in _MOMENTS})


def _span(summaries: Sequence[RateSummary], moment: str) -> tuple[float, float] | None:
    values = [getattr(summary, moment) for summary in summaries]
    return None if None in values else (min(values), max(values))


def _megabytes(tensors: Iterable[Tensor]) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


def _numbers(row: Row) -> tuple[int, int, float, float]:
    return row.frozen, row.trainable, row.frozen_mb, row.trainable_mb


def _sizes(frozen: int, trainable: int, frozen_mb: float, trainable_mb: float) -> tuple[str, ...]:
    return f'{frozen:,}', f'{trainable:,}', f'{frozen_mb:.2f}', f'{trainable_mb:.2f}'


def _rate(row: Row) -> tuple[str, ...]:
    lacking = f'{len(row.without_rate)} without' if row.without_rate else ''
    if row.rate is None:
        return (lacking or '-', *('' if lacking else '-' for _ in _MOMENTS[1:]))
    start, *others = (_range(getattr(row.rate, moment)) for moment in _MOMENTS)
    return (f'{start}, {lacking}' if lacking else start, *others)


def _range(values: tuple[float, float] | None) -> str:
    if values is None:
        return '?'
    low, high = (f'{value:.3g}' for value in values)
    return low if low == high else f'{low} to {high}'
