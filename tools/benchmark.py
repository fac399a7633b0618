"""Measure the speed and memory of a part of the project: ``python tools/benchmark.py NAME``.

Every benchmark compares its sides in one run and prints a Markdown table; for a benchmark's own
options: ``python tools/benchmark.py NAME --help``.
"""

import argparse
import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import _startup

_startup.prepare(needs='torch')

import torch

from projects.cmt_aqr import benchmarks
from projects.cmt_aqr.benchmarks.report import OtherWork, machine, machine_line
from projects.cmt_aqr.files import dump_json
from projects.cmt_aqr.usage_error import UsageError

# Modules of `projects.cmt_aqr.benchmarks`. Only the one that runs is imported, since some need
# torch alone and others the whole stack.
BENCHMARKS = ('attention', 'freeze', 'model', 'router', 'training_memory', 'voxels')


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of this command, with the options of the benchmark that the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='benchmark', required=True)
    for name in BENCHMARKS:
        command = commands.add_parser(name, help=_first_line(name))
        if name == next(iter(arguments), None):
            _add_common_arguments(command)
            _benchmark(name).add_arguments(command)
    return parser


def _benchmark(name: str) -> ModuleType:
    return import_module(f'{benchmarks.__name__}.{name}')


def _first_line(name: str) -> str:
    """First line of the docstring of a benchmark, which is read without importing it."""
    source = Path(benchmarks.__file__).with_name(f'{name}.py').read_text()
    return ast.get_docstring(ast.parse(source)).splitlines()[0]


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
    parser = make_parser(sys.argv[1:])
    args = parser.parse_args()
    for name, least in (('threads', 1), ('rounds', 1), ('warmup', 0)):
        if getattr(args, name) < least:
            parser.error(f'--{name} must be {least} or more, got {getattr(args, name)}')
    facts = machine(args.device, args.threads)
    others = OtherWork()
    try:
        report = _benchmark(args.benchmark).run(args)
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
