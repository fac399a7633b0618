"""Reports on freezing: a table of parameters and learning rates by module, and plain data."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor, nn

from ..markdown import align
from .audit import Frozen
from .names import by_part, part_names
from .schedule import RateSummary

_HEAD = (
    'module',
    'frozen',
    'trainable',
    'frozen MB',
    'trainable MB',
    'rate: start',
    'highest',
    'end',
)
_MOMENTS = ('start', 'highest', 'end')


@dataclass(frozen=True, kw_only=True)
class Row:
    """Parameters of one part of the model: numbers of values, and sizes in 10^6 bytes."""

    part: str
    frozen: int
    trainable: int
    frozen_mb: float
    trainable_mb: float
    rate: dict[str, tuple[float, float] | None] | None
    """lowest and highest rate among the trainable parameters at the ``start``, the ``highest``
    point and the ``end`` of the schedule, of which the last two are ``None`` if it is unknown;
    ``None`` if the optimizer has no parameter of the part"""
    without_rate: tuple[str, ...]
    """names of trainable parameters that the optimizer lacks"""


def make_table(model: nn.Module, rates: Mapping[int, RateSummary]) -> list[Row]:
    """One row for each part of the model; ``rates`` are those of :func:`.schedule.plan_rates`."""
    parameters = dict(model.named_parameters())
    parts = part_names(model)
    members = {**{part: [] for part in parts}, **by_part(parameters, parts)}
    return [_row(part, {n: parameters[n] for n in names}, rates) for part, names in members.items()]


def format_table(table: Sequence[Row]) -> str:
    """The rows and their sum as aligned text."""
    numbers = [(row.frozen, row.trainable, row.frozen_mb, row.trainable_mb) for row in table]
    sums = [sum(column) for column in zip(*numbers, strict=True)] or [0, 0, 0.0, 0.0]
    cells = [
        (row.part, *_sizes(*sizes), *_rate(row)) for row, sizes in zip(table, numbers, strict=True)
    ]
    return align([_HEAD, *cells, ('total', *_sizes(*sums), '', '', '')])


def describe(frozen: Frozen, filled: Mapping[str, str], table: Sequence[Row]) -> dict:
    """Plain data for a JSON report; ``filled`` has the source of each tensor from a checkpoint."""
    return {
        'modules': [asdict(row) for row in table],
        'frozen_parameters': len(frozen.parameters),
        'frozen_buffers': len(frozen.buffers),
        'modules_in_evaluation_mode': len(frozen.modules),
        'filled_from': dict(Counter(filled[name] for name in frozen.loadable if name in filled)),
        'unfilled': [name for name in frozen.loadable if name not in filled],
    }


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
        rate={moment: _span(found, moment) for moment in _MOMENTS} if found else None,
        without_rate=tuple(name for name, p in trainable.items() if id(p) not in rates),
    )


def _span(summaries: Sequence[RateSummary], moment: str) -> tuple[float, float] | None:
    values = [getattr(summary, moment) for summary in summaries]
    return None if None in values else (min(values), max(values))


def _megabytes(tensors: Iterable[Tensor]) -> float:
    return sum(tensor.nbytes for tensor in tensors) / 1e6


def _sizes(frozen: int, trainable: int, frozen_mb: float, trainable_mb: float) -> tuple[str, ...]:
    return f'{frozen:,}', f'{trainable:,}', f'{frozen_mb:.2f}', f'{trainable_mb:.2f}'


def _rate(row: Row) -> tuple[str, ...]:
    lacking = f'{len(row.without_rate)} without' if row.without_rate else ''
    if row.rate is None:
        return (lacking or '-', *('' if lacking else '-' for _ in _MOMENTS[1:]))
    start, *others = map(_range, row.rate.values())
    return (f'{start}, {lacking}' if lacking else start, *others)


def _range(values: tuple[float, float] | None) -> str:
    if values is None:
        return '?'
    low, high = (f'{value:.3g}' for value in values)
    return low if low == high else f'{low} to {high}'
