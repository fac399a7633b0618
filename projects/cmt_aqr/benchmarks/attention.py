"""What a router costs in cross-attention: plain, dense and every other back end and form.

One layer with 900 queries, in the sizes of the released models. ``dense`` spells the router's
bias, gate or mix out for every pair of a query and a token; it is left out where the machine has
not got the memory.
"""

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from .attention_step import NUM_HEADS, NUM_QUERIES, Ask, AttentionStep, Size
from .processes import SideProcess
from .report import Report, duration, gigabytes, spread, table
from .timing import Times, alternate, summarize

SIZES = {
    'r50': Size(bev=(128, 128), image=(20, 50), camera_window=8),
    'vov': Size(bev=(180, 180), image=(40, 100), camera_window=15),
    'vov_x4': Size(bev=(360, 360), image=(80, 200), camera_window=15),
}
PLAIN = 'plain'
SIDES = {
    PLAIN: None,
    'bias: dense': Ask('dense'),
    'bias: folded': Ask('folded'),
    'bias per camera: folded': Ask('folded', groups='camera'),
    'bias in windows: dense': Ask('dense', scope='local'),
    'bias in windows: window': Ask('window', scope='local'),
    'bias with both scopes: window': Ask('window', scope='both'),
    'gate: dense': Ask('dense', form='gate'),
    'gate: folded': Ask('folded', form='gate'),
    'mix: dense': Ask('dense', form='mix'),
    'mix: folded': Ask('folded', form='mix'),
}
# Tensors of H x Q x K numbers that a dense step holds at its peak, by form.
DENSE_TENSORS = {'add': 4, 'gate': 5, 'mix': 8}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this benchmark."""
    parser.add_argument(
        '--sizes',
        nargs='+',
        choices=SIZES,
        default=['r50', 'vov'],
        help='of the model; vov_x4 has four times the tokens of vov',
    )


def run(args: argparse.Namespace) -> Report:
    """Measure every side in a process of its own, in turn, one size after another."""
    results = {
        name: measure(
            SIZES[name],
            device=args.device,
            threads=args.threads,
            rounds=args.rounds,
            warmup=args.warmup,
        )
        for name in args.sizes
    }
    data = {'rounds': args.rounds, 'warmup': args.warmup, 'sizes': results}
    return Report(markdown=_markdown(data, args.device), data=data)


def measure(size: Size, *, device: torch.device, threads: int, rounds: int, warmup: int) -> dict:
    """Compare all sides that fit into memory.

    Returns:
        ``num_tokens``, ``left_out`` (the reason for each side that was), and for each of the
        ``sides`` what :func:`compare` gives.
    """
    left_out = too_large(size, free=_free_memory(device))
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                SideProcess(
                    AttentionStep,
                    dict(size=size, ask=ask, device=device),
                    device=device,
                    threads=threads,
                )
            )
            for name, ask in SIDES.items()
            if name not in left_out
        }
        runs = alternate(sides, rounds=rounds, warmup=warmup)
        memory = {
            name: {'inference': side.get('inference_memory'), 'training': side.peak_memory()}
            for name, side in sides.items()
        }
    return {
        'num_tokens': size.num_tokens,
        'left_out': left_out,
        'sides': compare(runs, memory),
        'runs': runs,
    }


def too_large(size: Size, *, free: int) -> dict[str, str]:
    """The dense sides that need more than the free memory, in bytes, each with the reason."""
    reasons = {}
    for name, ask in SIDES.items():
        if ask is None or ask.backend != 'dense':
            continue
        needed = DENSE_TENSORS[ask.form] * 4 * NUM_HEADS * NUM_QUERIES * size.num_tokens
        if needed > free:
            reasons[name] = f'needs about {gigabytes(needed)}; {gigabytes(free)} are free'
    return reasons


def compare(
    runs: Mapping[str, list[Times]], memory: Mapping[str, Mapping[str, int]]
) -> dict[str, dict]:
    """Hold each side against plain attention.

    Args:
        runs: times of :class:`.attention_step.AttentionStep` for each side.
        memory: peaks in bytes of inference and training.

    Returns:
        for each side ``seconds`` (a :class:`.timing.Spread` of each phase), ``memory``, and as
        multiples of plain attention ``time_share`` and ``memory_share`` of inference and training.
    """
    seconds_of = {name: summarize(times) for name, times in runs.items()}
    plain = seconds_of[PLAIN]
    return {
        name: {
            'seconds': seconds,
            'memory': memory[name],
            'time_share': {p: seconds[p].median / plain[p].median for p in memory[name]},
            'memory_share': {p: memory[name][p] / memory[PLAIN][p] for p in memory[name]},
        }
        for name, seconds in seconds_of.items()
    }


def _free_memory(device: torch.device) -> int:
    """Bytes that are not in use."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    lines = Path('/proc/meminfo').read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith('MemAvailable'))


def _markdown(data: dict, device: torch.device) -> str:
    kind = (
        'what torch allocated'
        if device.type == 'cuda'
        else 'resident memory above that before the layer was built'
    )
    paragraphs = [
        f'Cross-attention of one layer, {NUM_QUERIES} queries, float32. Medians (lowest–highest) '
        f'of {data["rounds"]} rounds after {data["warmup"]} to warm up; sides in turn, each in a '
        f'process of its own. × is the multiple of plain attention. Peak memory: {kind}.'
    ]
    for name, result in data['sizes'].items():
        paragraphs.append(f'{name}, {result["num_tokens"]} tokens:')
        paragraphs.append(_table(result['sides']))
        paragraphs += [f'Left out: {side} {why}.' for side, why in result['left_out'].items()]
    return '\n\n'.join(paragraphs)


def _table(sides: Mapping[str, dict]) -> str:
    head = ('', 'inference', '×', 'peak', 'forward', 'backward', 'training', '×', 'peak', '×')
    rows = []
    for name, side in sides.items():
        seconds, memory, share = side['seconds'], side['memory'], side['time_share']
        rows.append(
            (
                name,
                spread(seconds['inference']),
                f'{share["inference"]:.2f}',
                gigabytes(memory['inference']),
                duration(seconds['forward'].median),
                duration(seconds['backward'].median),
                spread(seconds['training']),
                f'{share["training"]:.2f}',
                gigabytes(memory['training']),
                f'{side["memory_share"]["training"]:.2f}',
            )
        )
    return table(head, rows)
