"""What a router costs in a training step: the same frozen CMT without one and with each form of it.

Everything that a router brings counts: its windows and weights, what they ask of attention, and
that denoising queries are routed too. On a CPU, work is processor time, which other load disturbs
less than the time that passes.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from ..usage_error import UsageError
from .inputs import check_samples
from .processes import SideProcess
from .report import Report, duration, gigabytes, spread, table
from .timing import Spread, Times, alternate, summarize, work
from .training_step import TrainingStep

WITHOUT = 'no router'
_AQR = 'model.pts_bbox_head.aqr'
_BIAS = {f'{_AQR}.routing.type': 'BiasRouting'}
FORMS = {
    'bias': _BIAS,
    'bias per camera': {**_BIAS, f'{_AQR}.weight_generator.groups': 'camera'},
    'bias in windows': {**_BIAS, f'{_AQR}.routing.scope': 'local'},
    'bias with both scopes': {**_BIAS, f'{_AQR}.routing.scope': 'both'},
    'gate': {f'{_AQR}.routing.type': 'GateRouting'},
    'mix': {f'{_AQR}.routing.type': 'MixRouting'},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this benchmark."""
    parser.add_argument(
        '--config',
        type=Path,
        default=Path('configs/cmt_aqr/cmt_aqr_voxel0100_r50_800x320_cbgs.py'),
        help='with a router',
    )
    parser.add_argument(
        '--without',
        type=Path,
        default=Path('configs/cmt/cmt_voxel0100_r50_800x320_cbgs_finetune.py'),
        help='the same recipe without one',
    )
    parser.add_argument(
        '--forms', nargs='+', choices=FORMS, default=list(FORMS), help='of the router'
    )
    parser.add_argument(
        '--frame', default='data/real_frame', help='data root whose first sample is trained on'
    )
    parser.add_argument(
        '--synthetic', action='store_true', help='train on a sample made at random instead'
    )


def run(args: argparse.Namespace) -> Report:
    """Measure every side in a process of its own, in turn.

    Raises:
        UsageError: a config or the data root does not exist.
    """
    for config in (args.config, args.without):
        if not config.is_file():
            raise UsageError(f'config {config} does not exist (in {Path.cwd()})')
    data_root = None if args.synthetic else check_samples(args.frame)
    settings = {WITHOUT: (args.without, {})}
    settings |= {form: (args.config, FORMS[form]) for form in args.forms}
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                SideProcess(
                    TrainingStep,
                    dict(
                        config=str(config),
                        options=options,
                        data_root=data_root,
                        device=args.device,
                    ),
                    device=args.device,
                    threads=args.threads,
                )
            )
            for name, (config, options) in settings.items()
        }
        runs = alternate(sides, rounds=args.rounds, warmup=args.warmup)
        facts = {name: side.get('facts') for name, side in sides.items()}
        memory = {name: side.peak_memory() for name, side in sides.items()}
    data = {
        'configs': {WITHOUT: str(args.without), 'with': str(args.config)},
        'data_root': data_root,
        'rounds': args.rounds,
        'warmup': args.warmup,
        'sides': compare(runs, facts, memory),
        'runs': runs,
    }
    return Report(markdown=_markdown(data, args.device), data=data)


def compare(
    runs: Mapping[str, Sequence[Times]], facts: Mapping[str, dict], memory: Mapping[str, int]
) -> dict[str, dict]:
    """Hold each side against the one without a router.

    Args:
        runs: times of :class:`.training_step.TrainingStep` for each side.
        facts: of each side, as that class gives them.
        memory: peak of each side in bytes.

    Returns:
        for each side its ``trainable`` parameters, ``seconds`` (a :class:`.timing.Spread` of each
        phase), ``peak_memory``, ``memory_share``, and the share of its step that the router takes:
        ``time_taken`` of the time that passes and ``work_taken`` of the work.
    """
    seconds_of = {name: summarize(times) for name, times in runs.items()}
    without = seconds_of[WITHOUT]
    return {
        name: {
            'trainable': facts[name]['trainable'],
            'seconds': measured,
            'peak_memory': memory[name],
            'memory_share': memory[name] / memory[WITHOUT],
            'time_taken': _taken(measured, without),
            'work_taken': _taken(work(measured), work(without)),
        }
        for name, measured in seconds_of.items()
    }


def _taken(measured: Mapping[str, Spread], without: Mapping[str, Spread]) -> float:
    return 1 - without['step'].median / measured['step'].median


def _markdown(data: dict, device: torch.device) -> str:
    source = data['data_root'] or 'random input'
    introduction = (
        f'Training step of `{data["configs"]["with"]}`, and of `{data["configs"][WITHOUT]}`, on '
        f'one sample of {source}, weights random. Medians (lowest–highest) of {data["rounds"]} '
        f'rounds after {data["warmup"]} to warm up; sides in turn, each in a process of its own. '
        '"Router" is the share of the step that it takes.'
    )
    return f'{introduction}\n\n{_table(data["sides"], on_cpu=device.type == "cpu")}'


def _table(sides: Mapping[str, dict], *, on_cpu: bool) -> str:
    head = ['', 'trained', 'head: forward', 'head: backward', 'step', 'router', 'peak']
    if on_cpu:
        head[-1:-1] = ['processor time', 'router']
    rows = []
    for name, side in sides.items():
        seconds = side['seconds']
        row = [
            name,
            f'{side["trainable"] / 1e6:.2f} M',
            duration(seconds['forward/head'].median),
            duration(seconds['backward/head'].median),
            spread(seconds['step']),
            f'{side["time_taken"]:.1%}',
            f'{gigabytes(side["peak_memory"])} ({side["memory_share"]:.2f}×)',
        ]
        if on_cpu:
            row[-1:-1] = [spread(work(seconds)['step']), f'{side["work_taken"]:.1%}']
        rows.append(row)
    return table(head, rows)
