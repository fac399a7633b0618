"""Cost of a router in the decoder: CMT, and each back end and form of routed cross-attention.

The decoder has 900 queries and the tokens of a released model. ``dense`` materialises the bias,
gate or mix for every pair of a query and a token, and takes several times the memory.
"""

import argparse
from collections.abc import Mapping
from functools import partial

import torch

from projects.cmt_aqr.cli.entry import number
from projects.cmt_aqr.doctor.decoder_inputs import SIZES, RouterVariant, Size
from projects.cmt_aqr.markdown import duration, table
from projects.cmt_aqr.usage_error import UsageError

from .decoder_step import NUM_QUERIES, DecoderStep, RoutedSide
from .processes import Measured, measure
from .report import Report, gigabytes, memory_kind, procedure, spread
from .timing import summarize, work

PLAIN = 'plain'
_CAMERA, _LOCAL, _BOTH, _GATE, _MIX = (
    RouterVariant(groups='camera'),
    RouterVariant(scope='local'),
    RouterVariant(scope='both'),
    RouterVariant(form='gate'),
    RouterVariant(form='mix'),
)
SIDES = {
    PLAIN: None,
    'bias: dense': RoutedSide('dense'),
    'bias: folded': RoutedSide('folded'),
    'bias: grouped': RoutedSide('grouped'),
    'bias per camera: grouped': RoutedSide('grouped', _CAMERA),
    'bias in windows: dense': RoutedSide('dense', _LOCAL),
    'bias in windows: window': RoutedSide('window', _LOCAL),
    'bias with both scopes: window': RoutedSide('window', _BOTH),
    'gate: dense': RoutedSide('dense', _GATE),
    'gate: grouped': RoutedSide('grouped', _GATE),
    'mix: dense': RoutedSide('dense', _MIX),
    'mix: grouped': RoutedSide('grouped', _MIX),
    'router and gate: grouped': RoutedSide('grouped', _GATE, router=True),
    'router and both scopes: window': RoutedSide('window', _BOTH, router=True),
}
DTYPES = {name: getattr(torch, name) for name in ('float32', 'bfloat16', 'float16')}
PHASES = ('inference', 'training')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        '--sizes',
        nargs='+',
        choices=SIZES,
        default=['r50', 'vov'],
        help='models whose numbers of tokens are used; vov_x4 has four times those of vov',
    )
    parser.add_argument('--layers', type=number(int, 1), default=1, help='number of decoder layers')
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='float32',
        help='other than float32: automatic mixed precision with parameters in float32',
    )
    parser.add_argument(
        '--dense', action='store_true', help='also measure the dense back end, which needs memory'
    )


def run(args: argparse.Namespace) -> Report:
    """Measure all sides, one size after another.

    Raises:
        UsageError: ``--layers`` is less than 1.
    """
    if args.layers < 1:
        raise UsageError(f'--layers must be 1 or more, got {args.layers}')
    sizes = {name: measure_size(SIZES[name], args) for name in args.sizes}
    return Report(markdown=_markdown(sizes, args), data={'sizes': sizes})


def measure_size(size: Size, args: argparse.Namespace) -> dict:
    """Compare the sides at one size.

    Returns:
        ``num_tokens``; ``sides``, see :func:`compare`; and the times of all ``runs``.
    """
    settings = dict(size=size, num_layers=args.layers, device=args.device, dtype=DTYPES[args.dtype])
    makers = {
        name: partial(DecoderStep, routed=side, **settings)
        for name, side in SIDES.items()
        if args.dense or side is None or side.backend != 'dense'
    }
    measured = measure(makers, args)
    return {
        'num_tokens': size.num_tokens,
        'sides': compare(measured),
        'runs': {name: side.runs for name, side in measured.items()},
    }


def compare(measured: Mapping[str, Measured]) -> dict[str, dict]:
    """Compare each side with plain attention.

    Returns:
        for each side ``seconds`` (a :class:`.timing.Spread` of each phase), ``memory`` (peaks of
        inference and training in bytes), and as multiples of plain attention ``time_share``,
        ``work_share`` (see :func:`.timing.work`) and ``memory_share``.
    """
    results = {}
    for name, side in measured.items():
        memory = {'inference': side.facts['inference_memory'], 'training': side.peak_memory}
        results[name] = {'seconds': summarize(side.runs), 'memory': memory}
    plain = results[PLAIN]
    for side in results.values():
        seconds, reference = side['seconds'], plain['seconds']
        side['time_share'] = {p: seconds[p].median / reference[p].median for p in PHASES}
        side['work_share'] = {
            p: work(seconds)[p].median / work(reference)[p].median for p in PHASES
        }
        side['memory_share'] = {p: side['memory'][p] / plain['memory'][p] for p in PHASES}
    return results


def _markdown(sizes: Mapping[str, dict], args: argparse.Namespace) -> str:
    paragraphs = [
        f'Decoder of {args.layers} layer(s), {NUM_QUERIES} queries, {args.dtype}. '
        f'{procedure(args)} × is the multiple of plain CMT, work × that of its processor time, '
        f'which other load disturbs less. {memory_kind(args.device)}'
    ]
    for name, result in sizes.items():
        paragraphs.append(f'{name}, {result["num_tokens"]} tokens:')
        paragraphs.append(_table(result['sides'], on_cpu=args.device.type == 'cpu'))
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
            for phase in PHASES
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
