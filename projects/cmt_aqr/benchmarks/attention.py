"""What a router costs in the decoder: plain, dense and every other back end and form.

The decoder has 900 queries and the tokens of a released model. ``dense`` spells the router's bias,
gate or mix out for every pair of a query and a token; it is left out where memory is short.
"""

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from ..usage_error import UsageError
from .attention_step import NUM_HEADS, NUM_QUERIES, Ask, DecoderStep, Size
from .processes import SideProcess
from .report import Report, duration, gigabytes, spread, table
from .timing import Times, alternate, summarize, work

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
    'bias: grouped': Ask('grouped'),
    'bias per camera: grouped': Ask('grouped', groups='camera'),
    'bias in windows: dense': Ask('dense', scope='local'),
    'bias in windows: window': Ask('window', scope='local'),
    'bias with both scopes: window': Ask('window', scope='both'),
    'gate: dense': Ask('dense', form='gate'),
    'gate: grouped': Ask('grouped', form='gate'),
    'mix: dense': Ask('dense', form='mix'),
    'mix: grouped': Ask('grouped', form='mix'),
    'router and gate: grouped': Ask('grouped', form='gate', router=True),
    'router and both scopes: window': Ask('window', scope='both', router=True),
}
DTYPES = {name: getattr(torch, name) for name in ('float32', 'bfloat16', 'float16')}
# Tensors of H x Q x K numbers that a dense side keeps for each layer, and holds beside at its peak.
DENSE_TENSORS = {'bias': (3, 1), 'gate': (3, 2), 'mix': (4, 4)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this benchmark."""
    parser.add_argument(
        '--sizes',
        nargs='+',
        choices=SIZES,
        default=['r50', 'vov'],
        help='of the model; vov_x4 has four times the tokens of vov',
    )
    parser.add_argument('--layers', type=int, default=1, help='of the decoder')
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='float32',
        help='other than float32: automatic mixed precision in this type, parameters in float32',
    )
    parser.add_argument('--no-dense', action='store_true', help='leave the dense sides out')


def run(args: argparse.Namespace) -> Report:
    """Measure every side in a process of its own, in turn, one size after another.

    Raises:
        UsageError: no layers.
    """
    if args.layers < 1:
        raise UsageError(f'--layers must be 1 or more, got {args.layers}')
    results = {
        name: measure(
            SIZES[name],
            num_layers=args.layers,
            dense=not args.no_dense,
            dtype=DTYPES[args.dtype],
            device=args.device,
            threads=args.threads,
            rounds=args.rounds,
            warmup=args.warmup,
        )
        for name in args.sizes
    }
    data = {
        'layers': args.layers,
        'dtype': args.dtype,
        'rounds': args.rounds,
        'warmup': args.warmup,
        'sizes': results,
    }
    return Report(markdown=_markdown(data, args.device), data=data)


def measure(
    size: Size,
    *,
    num_layers: int,
    dense: bool,
    dtype: torch.dtype,
    device: torch.device,
    threads: int,
    rounds: int,
    warmup: int,
) -> dict:
    """Compare all sides that fit into memory, or those that are not dense.

    Returns:
        ``num_tokens``, ``left_out`` (the reason for each side that was), and for each of the
        ``sides`` what :func:`compare` gives.
    """
    if dense:
        left_out = too_large(size, num_layers, free=_free_memory(device))
    else:
        left_out = dict.fromkeys(_dense_sides(), 'not asked for')
    settings = dict(size=size, num_layers=num_layers, device=device, dtype=dtype)
    sides = {
        name: SideProcess(DecoderStep, dict(settings, ask=ask), device=device, threads=threads)
        for name, ask in SIDES.items()
        if name not in left_out
    }
    with ExitStack() as stack:
        for side in sides.values():
            stack.enter_context(side)
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


def too_large(size: Size, num_layers: int, *, free: int) -> dict[str, str]:
    """The dense sides that need more than the free memory, in bytes, each with the reason.

    The need is that in float32; mixed precision needs less.
    """
    reasons = {}
    for name, ask in _dense_sides().items():
        kept, passing = DENSE_TENSORS[ask.form]
        tensors = kept * num_layers + passing
        needed = tensors * 4 * NUM_HEADS * NUM_QUERIES * size.num_tokens
        if needed > free:
            reasons[name] = f'needs about {gigabytes(needed)}; {gigabytes(free)} are free'
    return reasons


def compare(
    runs: Mapping[str, list[Times]], memory: Mapping[str, Mapping[str, int]]
) -> dict[str, dict]:
    """Hold each side against plain attention.

    Args:
        runs: times of :class:`.attention_step.DecoderStep` for each side.
        memory: peaks in bytes of inference and training.

    Returns:
        for each side ``seconds`` (a :class:`.timing.Spread` of each phase), ``memory``, and as
        multiples of plain attention ``time_share``, ``work_share`` (see :func:`.timing.work`) and
        ``memory_share`` of inference and training.
    """
    seconds_of = {name: summarize(times) for name, times in runs.items()}
    plain = seconds_of[PLAIN]
    return {
        name: {
            'seconds': seconds,
            'memory': memory[name],
            'time_share': {p: seconds[p].median / plain[p].median for p in memory[name]},
            'work_share': {
                p: work(seconds)[p].median / work(plain)[p].median for p in memory[name]
            },
            'memory_share': {p: memory[name][p] / memory[PLAIN][p] for p in memory[name]},
        }
        for name, seconds in seconds_of.items()
    }


def _dense_sides() -> dict[str, Ask]:
    return {name: ask for name, ask in SIDES.items() if ask is not None and ask.backend == 'dense'}


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
        else 'resident memory above that before the decoder was built, with what the allocator '
        'keeps of freed memory (little with MALLOC_MMAP_THRESHOLD_=1048576 in the environment)'
    )
    paragraphs = [
        f'Decoder of {data["layers"]} layer(s), {NUM_QUERIES} queries, {data["dtype"]}. Medians '
        f'(lowest–highest) of {data["rounds"]} rounds after {data["warmup"]} to warm up; sides in '
        f'turn, each in a process of its own. × is the multiple of plain CMT, work × that of '
        f'processor time, which other load disturbs less. Peak memory: {kind}.'
    ]
    for name, result in data['sizes'].items():
        paragraphs.append(f'{name}, {result["num_tokens"]} tokens:')
        paragraphs.append(_table(result['sides'], on_cpu=device.type == 'cpu'))
        paragraphs += [f'Left out: {side}, {why}.' for side, why in result['left_out'].items()]
    return '\n\n'.join(paragraphs)


def _table(sides: Mapping[str, dict], *, on_cpu: bool) -> str:
    compared = ('×', 'work ×') if on_cpu else ('×',)
    head = ('', 'inference', *compared, 'peak', 'forward', 'backward')
    head += ('training', *compared, 'peak', '×')
    rows = []
    for name, side in sides.items():
        seconds, memory = side['seconds'], side['memory']
        shares = {
            phase: [side[key][phase] for key in ('time_share', 'work_share')][: len(compared)]
            for phase in memory
        }
        rows.append(
            (
                name,
                spread(seconds['inference']),
                *(f'{share:.2f}' for share in shares['inference']),
                gigabytes(memory['inference']),
                duration(seconds['forward'].median),
                duration(seconds['backward'].median),
                spread(seconds['training']),
                *(f'{share:.2f}' for share in shares['training']),
                gigabytes(memory['training']),
                f'{side["memory_share"]["training"]:.2f}',
            )
        )
    return table(head, rows)
