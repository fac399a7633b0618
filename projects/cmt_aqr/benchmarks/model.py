"""What a model is and what it costs to run: parameters, arithmetic, latency by part, memory."""

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from mmengine.config import DictAction

from ..usage_error import UsageError
from .inference_step import InferenceStep
from .inputs import check_samples
from .processes import SideProcess
from .report import Report, duration, gigabytes, spread, table
from .timing import alternate, summarize

PHASES = ('input', 'lidar', 'camera', 'head')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this benchmark."""
    parser.add_argument('configs', nargs='+', type=Path, help='of one or several models')
    parser.add_argument(
        '--frame', default='data/real_frame', help='data root whose first sample is looked at'
    )
    parser.add_argument(
        '--synthetic', action='store_true', help='look at a sample made at random instead'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings to change in every config, such as model.img_backbone.depth=18',
    )


def run(args: argparse.Namespace) -> Report:
    """Measure every model in a process of its own, in turn.

    Raises:
        UsageError: a config or the data root does not exist.
    """
    for config in args.configs:
        if not config.is_file():
            raise UsageError(f'config {config} does not exist (in {Path.cwd()})')
    data_root = None if args.synthetic else check_samples(args.frame)
    with ExitStack() as stack:
        sides = {
            config.stem: stack.enter_context(
                SideProcess(
                    InferenceStep,
                    dict(
                        config=str(config),
                        options=args.cfg_options,
                        data_root=data_root,
                        device=args.device,
                    ),
                    device=args.device,
                    threads=args.threads,
                )
            )
            for config in args.configs
        }
        runs = alternate(sides, rounds=args.rounds, warmup=args.warmup)
        results = {
            name: {
                'seconds': summarize(runs[name]),
                'peak_memory': side.peak_memory(),
                'parts': side.get('facts'),
            }
            for name, side in sides.items()
        }
    data = {
        'configs': [str(config) for config in args.configs],
        'options': dict(args.cfg_options),
        'data_root': data_root,
        'rounds': args.rounds,
        'warmup': args.warmup,
        'models': results,
        'runs': runs,
    }
    return Report(markdown=_markdown(data, args.device), data=data)


def _markdown(data: dict, device: torch.device) -> str:
    source = data['data_root'] or 'random input'
    options = ''.join(f', {key}={value}' for key, value in data['options'].items())
    kind = (
        'what torch allocated'
        if device.type == 'cuda'
        else 'resident memory above that before the model was built'
    )
    paragraphs = [
        f'Inference of one sample of {source}{options}, weights random. Medians (lowest–highest) '
        f'of {data["rounds"]} rounds after {data["warmup"]} to warm up; models in turn, each in a '
        f'process of its own. "Head" is decoder and boxes, "input" voxels and normalised images. '
        f'Peak memory: {kind}.',
        _latency_table(data['models']),
    ]
    for name, model in data['models'].items():
        paragraphs += [f'{name}:', _parts_table(model['parts'])]
    return '\n\n'.join(paragraphs)


def _latency_table(models: Mapping[str, dict]) -> str:
    head = ('', *PHASES, 'inference', 'peak')
    rows = [
        (
            name,
            *(duration(model['seconds'][phase].median) for phase in PHASES),
            spread(model['seconds']['inference']),
            gigabytes(model['peak_memory']),
        )
        for name, model in models.items()
    ]
    return table(head, rows)


def _parts_table(parts: Mapping[str, Mapping[str, int]]) -> str:
    """Of one model, with the sums in the last row."""
    keys = ('trainable', 'frozen', 'flops')
    sums = {key: sum(part[key] for part in parts.values()) for key in keys}
    rows = [
        (
            name,
            f'{facts["trainable"] / 1e6:.2f} M',
            f'{facts["frozen"] / 1e6:.2f} M',
            f'{facts["flops"] / 1e9:.1f}',
        )
        for name, facts in {**parts, 'all': sums}.items()
    ]
    return table(('part', 'trainable', 'frozen', 'GFLOPs'), rows)
