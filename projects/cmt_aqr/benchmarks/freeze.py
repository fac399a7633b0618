"""What freezing saves: a training step with all parts trained and by recipes A, B, C and D.

Recipe A stands four times: with its frozen parts computed as they are built, by their fast path, by
that in bfloat16, and with their features read from a cache. The other recipes have the fast path, D
also the cache.

Two limits stand beside the measured speed. The first is arithmetic, and what freezing alone can
give: a trained layer costs its forward work once, and twice that in the backward pass, a frozen one
only the first; so of a step of 3 there remain 3 - 2r, where r is the share of frozen parts in the
forward work with all parts trained. The second is what would be left if the frozen parts cost
nothing, as measured with all parts trained: no fast path can give more, and a cache only because
it needs no voxels either. On a CPU, work is processor time: other load lengthens a step, but adds
little to that.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import DictAction

from ..usage_error import UsageError
from .cached_step import CachedTrainingStep
from .inputs import check_samples
from .processes import SideProcess
from .report import Report, duration, gigabytes, spread, table
from .timing import Spread, Times, alternate, summarize, work
from .training_step import BRANCHES, TrainingStep


@dataclass(frozen=True, kw_only=True)
class _Side:
    """What is compared.

    Attributes:
        suffix: of the config's name.
        options: settings to change in it.
        step: what is run.
    """

    suffix: str = ''
    options: Mapping[str, Any] = field(default_factory=dict)
    step: type[TrainingStep] = TrainingStep


ALL_TRAINED = 'all trained'
_NECKS = ('img_neck', 'pts_neck')
_FAST_NECKS = {f'optim_wrapper.paramwise_cfg.custom_keys.{n}.lr_mult': 0.1 for n in _NECKS}
_FIXED_FEATURES = {f'model.{name}.frozen': True for name in _NECKS}
_LOW_RATE = {
    f'model.{name}.frozen': False for name in ('img_backbone', 'pts_middle_encoder', 'pts_backbone')
}
_CACHED = {'model.grid_mask': None}
SIDES = {
    ALL_TRAINED: _Side(),
    'recipe A, plain path': _Side(suffix='_finetune', options={'model.fast_path': None}),
    'recipe A': _Side(suffix='_finetune'),
    'recipe A, bfloat16': _Side(suffix='_finetune', options={'model.fast_path.dtype': 'bfloat16'}),
    'recipe A, cached': _Side(suffix='_finetune', step=CachedTrainingStep, options=_CACHED),
    'recipe B': _Side(suffix='_finetune', options=_FAST_NECKS),
    'recipe C': _Side(suffix='_finetune', options={**_FAST_NECKS, **_LOW_RATE}),
    'recipe D': _Side(suffix='_finetune', options=_FIXED_FEATURES),
    'recipe D, cached': _Side(
        suffix='_finetune', step=CachedTrainingStep, options={**_FIXED_FEATURES, **_CACHED}
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this benchmark."""
    parser.add_argument(
        '--config',
        type=Path,
        default=Path('configs/cmt/cmt_voxel0100_r50_800x320_cbgs.py'),
        help='with all parts trained; NAME_finetune.py beside it is the same with frozen backbones',
    )
    parser.add_argument(
        '--sides',
        nargs='+',
        choices=list(SIDES),
        default=list(SIDES),
        metavar='SIDE',
        help=f'what to measure beside {ALL_TRAINED!r}: {", ".join(map(repr, SIDES))}',
    )
    parser.add_argument(
        '--frame', default='data/real_frame', help='data root whose first sample is trained on'
    )
    parser.add_argument(
        '--synthetic', action='store_true', help='train on a sample made at random instead'
    )
    parser.add_argument(
        '--image-size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images, where memory does not hold a step at that of the config',
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
    configs = side_configs(args.config, args.sides)
    data_root = None if args.synthetic else check_samples(args.frame)
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                SideProcess(
                    SIDES[name].step,
                    dict(
                        config=str(path),
                        options={**SIDES[name].options, **args.cfg_options},
                        data_root=data_root,
                        device=args.device,
                        image_size=args.image_size,
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
        'options_of_sides': {name: dict(SIDES[name].options) for name in configs},
        'data_root': data_root,
        'image_size': args.image_size,
        'rounds': args.rounds,
        'warmup': args.warmup,
        'sides': results,
        'runs': runs,
    }
    return Report(markdown=_markdown(data, args.device), data=data)


def side_configs(config: Path, sides: Sequence[str] = tuple(SIDES)) -> dict[str, Path]:
    """The config with all parts trained, which is always one side, and those of other sides.

    Raises:
        UsageError: one of them does not exist.
    """
    configs = {
        name: config.with_stem(config.stem + side.suffix)
        for name, side in SIDES.items()
        if name == ALL_TRAINED or name in sides
    }
    for name, path in configs.items():
        if not path.is_file():
            suffixes = dict.fromkeys(side.suffix for side in SIDES.values() if side.suffix)
            raise UsageError(
                f'{name}: config {path} does not exist (in {Path.cwd()}); --config takes one that '
                f'has {", ".join(f"NAME{suffix}.py" for suffix in suffixes)} beside it'
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
        of its work, see :func:`.timing.work`), ``frozen_share`` of forward work, the ``ideal``
        speed-up that it allows, and ``at_most``, see :func:`limit`.
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
            'at_most': limit(reference, measured, facts[name]['frozen_parts']),
        }
    return results


def frozen_share(reference: Mapping[str, Spread], frozen_parts: Sequence[str]) -> float:
    """Share of some parts in the forward work with all parts trained."""
    done = work(reference)
    return sum(done[f'part/{name}'].median for name in frozen_parts) / done['forward'].median


def ideal_speed_up(frozen_share: float) -> float:
    """How much faster a step can be at best if this share of forward work needs no backward."""
    return 3 / (3 - 2 * frozen_share)


def limit(
    reference: Mapping[str, Spread], measured: Mapping[str, Spread], frozen_parts: Sequence[str]
) -> float:
    """How much faster a step could be if its frozen parts cost nothing, by work with all trained.

    Args:
        reference: with all parts trained.
        measured: of the side, whose branches say what backward pass is left of them.
        frozen_parts: of the side.
    """
    done, left = work(reference), work(measured)
    forward = sum(done[f'part/{name}'].median for name in frozen_parts)
    backward = sum(
        max(0.0, done[phase].median - left[phase].median)
        for phase in ('backward/camera', 'backward/lidar')
        if frozen_parts
    )
    return done['step'].median / (done['step'].median - forward - backward)


def _markdown(data: dict, device: torch.device) -> str:
    source = data['data_root'] or 'random input'
    if data['image_size']:
        source += ', images of {} x {}'.format(*data['image_size'])
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
        'costs more, freezing gains more, and a fast path adds to it. "At most" is what would be '
        'gained if the frozen parts cost nothing, forward or backward, by '
        f'{_kind_of_work(device)} with all parts trained. "Cached" reads the features of the '
        'frozen parts from a file that a worker has verified, and makes no voxels; that it loads '
        f'no sample either is not in the step. Peak memory: {kind}; weights, gradients and '
        'optimizer state count.',
    ]
    if checkpointed:
        paragraphs.append(
            f'Where it trains, {", ".join(checkpointed)} keeps few activations and computes them '
            'again in the backward pass, at the cost of one more forward pass: frozen, it saves '
            'more time and less memory than without that.'
        )
    return '\n\n'.join(paragraphs)


def _kind_of_work(device: torch.device) -> str:
    return 'processor time' if device.type == 'cpu' else 'time'


def _step_table(sides: Mapping[str, dict], *, on_cpu: bool) -> str:
    head = ['', 'trained', 'forward', 'backward', 'update', 'step', 'faster']
    head += ['processor time', 'less'] if on_cpu else []
    head += ['ideal (r)', 'at most', 'peak']
    rows = [
        (
            name,
            f'{side["trainable"] / 1e6:.2f} M',
            *(duration(side['seconds'][key].median) for key in ('forward', 'backward', 'update')),
            spread(side['seconds']['step']),
            f'{side["speed_up"]:.2f}×',
            *(_step_work(side) if on_cpu else ()),
            f'{side["ideal"]:.2f}× ({side["frozen_share"]:.2f})',
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
