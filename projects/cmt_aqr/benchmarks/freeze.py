"""What freezing saves: a training step with all parts trained and by recipes A, B, C and D.

The ideal beside the measured speed is arithmetic: a trained layer costs its forward work once, and
twice that in the backward pass, a frozen one only the first; so of a step of 3 there remain 3 - 2r,
where r is the share of frozen parts in the forward work with all parts trained. On a CPU, work is
processor time: other load lengthens a step, but adds little to that.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from mmengine.config import DictAction

from ..entry import UsageError
from .inputs import check_samples
from .processes import SideProcess
from .report import Report, duration, gigabytes, spread, table
from .timing import Spread, Times, alternate, summarize, work
from .training_step import BRANCHES, TrainingStep

ALL_TRAINED = 'all trained'
RECIPES = {
    'recipe A': '_finetune',
    'recipe B': '_finetune_b',
    'recipe C': '_finetune_c',
    'recipe D': '_finetune_d',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this benchmark."""
    parser.add_argument(
        '--config',
        type=Path,
        default=Path('configs/cmt/cmt_voxel0100_r50_800x320_cbgs.py'),
        help='with all parts trained; its recipes stand beside it as NAME_finetune[_b|_c|_d].py',
    )
    parser.add_argument(
        '--frame', default='data/real_frame', help='data root whose first sample is trained on'
    )
    parser.add_argument(
        '--synthetic', action='store_true', help='train on a sample made at random instead'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings to change in every config, such as model.img_backbone.with_cp=False',
    )


def run(args: argparse.Namespace) -> Report:
    """Measure every side in a process of its own, in turn.

    Raises:
        UsageError: a config or the data root does not exist.
    """
    configs = side_configs(args.config)
    data_root = None if args.synthetic else check_samples(args.frame)
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                SideProcess(
                    TrainingStep,
                    dict(
                        config=str(path),
                        options=args.cfg_options,
                        data_root=data_root,
                        device=args.device,
                    ),
                    device=args.device,
                    threads=args.threads,
                )
            )
            for name, path in configs.items()
        }
        runs = alternate(sides, rounds=args.rounds, warmup=args.warmup)
        facts = {name: side.get('facts') for name, side in sides.items()}
        memory = {name: side.peak_memory() for name, side in sides.items()}
    results = compare(runs, facts, memory)
    data = {
        'configs': {name: str(path) for name, path in configs.items()},
        'options': dict(args.cfg_options),
        'data_root': data_root,
        'rounds': args.rounds,
        'warmup': args.warmup,
        'sides': results,
        'runs': runs,
    }
    return Report(markdown=_markdown(data, args.device), data=data)


def side_configs(config: Path) -> dict[str, Path]:
    """The config with all parts trained and those of its recipes.

    Raises:
        UsageError: one of them does not exist.
    """
    suffixes = {ALL_TRAINED: '', **RECIPES}
    configs = {name: config.with_stem(config.stem + end) for name, end in suffixes.items()}
    for name, path in configs.items():
        if not path.is_file():
            raise UsageError(
                f'{name}: config {path} does not exist (in {Path.cwd()}); --config takes one that '
                f'has {", ".join(f"NAME{end}.py" for end in RECIPES.values())} beside it'
            )
    return configs


def compare(
    runs: Mapping[str, Sequence[Times]], facts: Mapping[str, dict], memory: Mapping[str, int]
) -> dict[str, dict]:
    """Hold each side against the one with all parts trained.

    Args:
        runs: times of :class:`.training_step.TrainingStep` for each side.
        facts: of each side, as that class gives them.
        memory: peak of each side in bytes.

    Returns:
        for each side its facts with ``seconds`` (a :class:`.timing.Spread` of each phase),
        ``peak_memory``, ``memory_share``, ``speed_up`` of the whole step, ``work_saved`` (the same
        of its work, see :func:`.timing.work`), ``frozen_share`` of forward work, and the ``ideal``
        speed-up that it allows.
    """
    seconds_of = {name: summarize(times) for name, times in runs.items()}
    reference = seconds_of[ALL_TRAINED]
    results = {}
    for name, measured in seconds_of.items():
        share = frozen_share(reference, facts[name]['frozen_parts'])
        results[name] = {
            **facts[name],
            'seconds': measured,
            'peak_memory': memory[name],
            'memory_share': memory[name] / memory[ALL_TRAINED],
            'speed_up': reference['step'].median / measured['step'].median,
            'work_saved': work(reference)['step'].median / work(measured)['step'].median,
            'frozen_share': share,
            'ideal': ideal_speed_up(share),
        }
    return results


def frozen_share(reference: Mapping[str, Spread], frozen_parts: Sequence[str]) -> float:
    """Share of some parts in the forward work with all parts trained."""
    done = work(reference)
    return sum(done[f'part/{name}'].median for name in frozen_parts) / done['forward'].median


def ideal_speed_up(frozen_share: float) -> float:
    """How much faster a step can be at best if this share of forward work needs no backward."""
    return 3 / (3 - 2 * frozen_share)


def _markdown(data: dict, device: torch.device) -> str:
    source = data['data_root'] or 'random input'
    options = ''.join(f', {key}={value}' for key, value in data['options'].items())
    checkpointed = sorted(
        {part for side in data['sides'].values() for part in side['checkpointed_parts']}
    )
    kind = (
        'what torch allocated'
        if device.type == 'cuda'
        else 'resident memory above that before the model was built'
    )
    paragraphs = [
        f'Training step of `{data["configs"][ALL_TRAINED]}`{options} on one sample of {source}, '
        f'weights random. Medians (lowest–highest) of {data["rounds"]} rounds after '
        f'{data["warmup"]} to warm up; sides in turn, each in a process of its own.',
        _step_table(data['sides'], on_cpu=device.type == 'cpu'),
        'By branch' + (', in processor time of all threads:' if device.type == 'cpu' else ':'),
        _branch_table(data['sides']),
        '"Ideal" is 3 / (3 - 2r), with r the share of the frozen parts in the forward work with '
        'all parts trained. It takes a backward pass to cost twice its forward pass: where it '
        f'costs more, freezing gains more. Peak memory: {kind}; weights, gradients and optimizer '
        'state count.',
    ]
    if checkpointed:
        paragraphs.append(
            f'Where it trains, {", ".join(checkpointed)} keeps few activations and computes them '
            'again in the backward pass, at the cost of one more forward pass: frozen, it saves '
            'more time and less memory than without that.'
        )
    return '\n\n'.join(paragraphs)


def _step_table(sides: Mapping[str, dict], *, on_cpu: bool) -> str:
    head = ['', 'trained', 'forward', 'backward', 'update', 'step', 'faster', 'ideal (r)', 'peak']
    if on_cpu:
        head[-2:-2] = ['processor time', 'less']
    rows = [
        (
            name,
            f'{side["trainable"] / 1e6:.2f} M',
            *(duration(side['seconds'][key].median) for key in ('forward', 'backward', 'update')),
            spread(side['seconds']['step']),
            f'{side["speed_up"]:.2f}×',
            *(_step_work(side) if on_cpu else ()),
            f'{side["ideal"]:.2f}× ({side["frozen_share"]:.2f})',
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
