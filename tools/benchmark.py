"""Measure the speed and memory of a part of the project: ``python tools/benchmark.py NAME``.

Every benchmark compares its sides in one run and prints a Markdown table; for a benchmark's own
options: ``python tools/benchmark.py NAME --help``.
"""

import os
import sys
from pathlib import Path

# Idle OpenMP threads must not spin: read by the runtime when torch is first imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from importlib import import_module
from importlib.util import find_spec

import torch

from projects.cmt_aqr.benchmarks.report import OtherWork, machine, machine_line
from projects.cmt_aqr.files import dump_json
from projects.cmt_aqr.usage_error import UsageError

NAMES = ['voxels']  # runs with torch alone
if find_spec('mmdet3d') is not None:
    NAMES += ['attention', 'freeze', 'model', 'router', 'training_memory']
BENCHMARKS = {name: import_module(f'projects.cmt_aqr.benchmarks.{name}') for name in sorted(NAMES)}


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command, with one sub-command for each benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='benchmark', required=True)
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(name, help=benchmark.__doc__.splitlines()[0])
        _add_common_arguments(command)
        benchmark.add_arguments(command)
    return parser


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    cuda = torch.cuda.is_available()
    parser.add_argument(
        '--device', type=torch.device, default=torch.device('cuda' if cuda else 'cpu')
    )
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='of torch on the CPU'
    )
    parser.add_argument('--rounds', type=int, default=5, help='that count')
    parser.add_argument('--warmup', type=int, default=1, help='rounds before, which do not')
    parser.add_argument('--json', type=Path, help='file to write the results to, in full')


def main() -> None:
    """Run one benchmark and print what it found."""
    parser = make_parser()
    args = parser.parse_args()
    for name, least in (('threads', 1), ('rounds', 1), ('warmup', 0)):
        if getattr(args, name) < least:
            parser.error(f'--{name} must be {least} or more, got {getattr(args, name)}')
    facts = machine(args.device, args.threads)
    others = OtherWork()
    try:
        report = BENCHMARKS[args.benchmark].run(args)
    except UsageError as error:
        parser.exit(2, f'{parser.prog}: {error}\n')
    other_work = others.cores()
    print(f'{machine_line(facts, other_work)}\n\n{report.markdown}')
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {
            'benchmark': args.benchmark,
            'machine': facts,
            'cores_of_other_work': round(other_work, 2),
            **report.data,
        }
        dump_json(args.json, result)


if __name__ == '__main__':
    main()
