"""Measure time and memory: ``python tools/benchmark.py NAME``.

Each benchmark compares its sides in one run and prints Markdown tables.
``python tools/benchmark.py NAME --help`` lists its options.
"""

import argparse
import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import _startup

_startup.prepare(needs=['torch'])

import torch

import benchmarks
from benchmarks.report import OtherWork, machine, machine_line
from projects.cmt_aqr.cli import entry
from projects.cmt_aqr.files import dump_json
from projects.cmt_aqr.usage_error import UsageError

# Modules of `benchmarks`. Only the one that runs is imported: some need torch alone.
BENCHMARKS = ('attention', 'data', 'memory', 'model', 'step', 'voxels')


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the options of the benchmark named by the arguments."""
    parser = entry.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='benchmark', required=True)
    for name in BENCHMARKS:
        command = commands.add_parser(name, help=_first_line(name))
        if name == next(iter(arguments), None):
            entry.add_screen_arguments(command)
            _add_common_arguments(command)
            _benchmark(name).add_arguments(command)
    return parser


def _benchmark(name: str) -> ModuleType:
    return import_module(f'{benchmarks.__name__}.{name}')


def _first_line(name: str) -> str:
    """First line of a benchmark's docstring, read without importing the module."""
    source = Path(benchmarks.__file__).with_name(f'{name}.py').read_text()
    return ast.get_docstring(ast.parse(source)).splitlines()[0]


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    cuda = torch.cuda.is_available()
    parser.add_argument(
        '--device', type=entry.device, default=torch.device('cuda' if cuda else 'cpu')
    )
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='CPU threads of torch'
    )
    parser.add_argument('--rounds', type=int, default=5, help='number of rounds that count')
    parser.add_argument('--warmup', type=int, default=1, help='number of rounds before them')
    parser.add_argument('--json', type=Path, help='file for the results in full')


def main(args: argparse.Namespace) -> None:
    """Run one benchmark and print its report."""
    for name, least in (('threads', 1), ('rounds', 1), ('warmup', 0)):
        if getattr(args, name) < least:
            raise UsageError(f'--{name} must be {least} or more, got {getattr(args, name)}')
    facts = machine(args.device, args.threads)
    others = OtherWork()
    report = _benchmark(args.benchmark).run(args)
    other_work = others.cores()
    print(f'{machine_line(facts, other_work)}\n\n{report.markdown}')
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        arguments = {name: str(value) for name, value in vars(args).items()}
        result = {'machine': facts, 'cores_of_other_work': round(other_work, 2)}
        dump_json(args.json, {'arguments': arguments, **result, **report.data})


if __name__ == '__main__':
    entry.run(main, make_parser(sys.argv[1:]))
