"""Cost of a training step: one config as the reference, and others against it.

Freezing: the reference trains all parts, and ``--against`` names configs that freeze some of them.
A router: the reference is a config without one, and ``--against`` names configs with one.

Beside the measured speed-up stands its limit, the speed-up if the frozen parts cost nothing, from
the times measured with the reference. Only a feature cache exceeds it, since it needs no voxels.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmengine.config import DictAction

from projects.cmt_aqr.cli.entry import number
from projects.cmt_aqr.markdown import duration, table
from projects.cmt_aqr.usage_error import UsageError

from . import workload
from .processes import Measured, measure
from .report import Report, gigabytes, memory_kind, procedure, spread
from .timing import Spread, summarize, work
from .training_step import BRANCHES, CachedTrainingStep, TrainingStep
from .workload import Workload

CACHED = 'cached'
_SETTINGS = argparse.ArgumentParser()
_SETTINGS.add_argument('options', nargs='*', action=DictAction, default={})


class StepSide(NamedTuple):
    """A side of the comparison."""

    config: Path
    options: dict
    """settings to change in the config"""
    cached: bool = False
    """whether the features of frozen parts come from a feature cache"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument('config', type=Path, help='the reference')
    parser.add_argument(
        '--against',
        nargs='+',
        action='append',
        default=[],
        metavar=('CONFIG', 'KEY=VALUE'),
        help='another config, with settings to change in it; the word "cached" among them reads '
        'the features of frozen parts from a feature cache; can be given several times',
    )
    workload.add_arguments(parser)
    parser.add_argument(
        '--image-size',
        nargs=2,
        type=number(int, 32),
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images, if memory does not suffice for that of the config',
    )


def run(args: argparse.Namespace) -> Report:
    """Measure all sides.

    Raises:
        UsageError: a config or the sample does not exist, or a side is given twice.
    """
    sides = parse_sides(args.config, args.against)
    data_root = workload.check([side.config for side in sides.values()], args)
    makers = {
        name: partial(
            CachedTrainingStep if side.cached else TrainingStep,
            Workload(
                str(side.config), {**side.options, **args.cfg_options}, data_root, args.image_size
            ),
            device=args.device,
        )
        for name, side in sides.items()
    }
    measured = measure(makers, args)
    results = compare(measured)
    runs = {name: side.runs for name, side in measured.items()}
    return Report(
        markdown=_markdown(results, workload.describe(data_root, args), args),
        data={'sides': results, 'runs': runs},
    )


def parse_sides(reference: Path, against: Sequence[Sequence[str]]) -> dict[str, StepSide]:
    """Sides by name, the reference first; a name is that of the config with its settings.

    Raises:
        UsageError: a setting is neither ``cached`` nor ``KEY=VALUE``, or two sides have one name.
    """
    sides = {reference.stem: StepSide(reference, {})}
    for config, *settings in against:
        name = ', '.join((Path(config).stem, *settings))
        if name in sides:
            raise UsageError(f'{name} is given twice; a config needs other settings or name')
        sides[name] = _parse_side(Path(config), settings)
    return sides


def _parse_side(config: Path, settings: Sequence[str]) -> StepSide:
    changes = [setting for setting in settings if setting != CACHED]
    for change in changes:
        if '=' not in change:
            raise UsageError(f'--against {config} {change}: settings are KEY=VALUE, or {CACHED!r}')
    options = dict(_SETTINGS.parse_args(changes).options)
    if CACHED not in settings:
        return StepSide(config, options)
    return StepSide(config, {'model.grid_mask': None, **options}, cached=True)


def compare(measured: Mapping[str, Measured]) -> dict[str, dict]:
    """Compare each side with the first, which is the reference.

    Args:
        measured: of :class:`.training_step.TrainingStep`.

    Returns:
        for each side its facts, ``seconds`` (a :class:`.timing.Spread` of each phase),
        ``peak_memory``, ``memory_share``, ``speed_up`` of the step, ``work_saved`` (the same for
        its work, see :func:`.timing.work`) and ``at_most``, see :func:`limit`.
    """
    seconds_of = {name: summarize(side.runs) for name, side in measured.items()}
    first = next(iter(measured))
    reference = seconds_of[first]
    results = {}
    for name, side in measured.items():
        seconds = seconds_of[name]
        frozen = set(side.facts['frozen_parts']) - set(measured[first].facts['frozen_parts'])
        results[name] = {
            **side.facts,
            'seconds': seconds,
            'peak_memory': side.peak_memory,
            'memory_share': side.peak_memory / measured[first].peak_memory,
            'speed_up': reference['step'].median / seconds['step'].median,
            'work_saved': work(reference)['step'].median / work(seconds)['step'].median,
            'at_most': limit(reference, seconds, frozen),
        }
    return results


def limit(
    reference: Mapping[str, Spread], measured: Mapping[str, Spread], frozen: Iterable[str]
) -> float:
    """Speed-up of the work of a step if its frozen parts cost nothing.

    Args:
        reference: times of the reference.
        measured: times of the side, whose branches show which backward work remains.
        frozen: parts that the side freezes and the reference trains.
    """
    done, left = work(reference), work(measured)
    forward = sum(done[f'part/{name}'].median for name in frozen)
    backward = sum(
        max(0.0, done[phase].median - left[phase].median)
        for phase in ('backward/camera', 'backward/lidar')
        if frozen
    )
    return done['step'].median / (done['step'].median - forward - backward)


def _markdown(sides: Mapping[str, dict], source: str, args: argparse.Namespace) -> str:
    on_cpu = args.device.type == 'cpu'
    if args.image_size:
        source += ', images of {} x {}'.format(*args.image_size)
    paragraphs = [
        f'Training step of `{args.config}` and others on {source}; weights are random. '
        f'{procedure(args)} {memory_kind(args.device)} It includes weights, gradients and the '
        'state of the optimizer.',
        _step_table(sides, on_cpu=on_cpu),
        'By branch' + (', in processor time of all threads:' if on_cpu else ':'),
        _branch_table(sides),
        '"Faster" and "less" compare with the first row. "At most" is the speed-up if the parts '
        'that the first row trains and this row freezes cost nothing, forward and backward.',
    ]
    return '\n\n'.join(paragraphs)


def _step_table(sides: Mapping[str, dict], *, on_cpu: bool) -> str:
    head = ['', 'trained', 'forward', 'backward', 'update', 'step', 'faster']
    head += ['processor time', 'less'] if on_cpu else []
    head += ['at most', 'peak']
    rows = [
        (
            name,
            f'{side["trainable"] / 1e6:.2f} M',
            *(duration(side['seconds'][key].median) for key in ('forward', 'backward', 'update')),
            spread(side['seconds']['step']),
            f'{side["speed_up"]:.2f}×',
            *(_step_work(side) if on_cpu else ()),
            f'{side["at_most"]:.2f}×',
            f'{gigabytes(side["peak_memory"])} ({side["memory_share"]:.2f}×)',
        )
        for name, side in sides.items()
    ]
    return table(head, rows)


def _step_work(side: dict) -> tuple[str, str]:
    return spread(work(side['seconds'])['step']), f'{side["work_saved"]:.2f}×'


def _branch_table(sides: Mapping[str, dict]) -> str:
    keys = [f'{phase}/{branch}' for phase in ('forward', 'backward') for branch in BRANCHES]
    head = ('', 'input', *(key.replace('/', ': ') for key in keys))
    rows = [
        (name, *(duration(work(side['seconds'])[key].median) for key in ('input', *keys)))
        for name, side in sides.items()
    ]
    return table(head, rows)
