"""Check the numerical results of this machine: ``python tools/doctor.py``.

Compares versions, compiled operators, sparse convolution, voxels, attention, a training step and
data-parallel training with slow and simple references. Prints one line for each check; the exit
status is 1 if one fails. docs/install.md explains the table.
"""

import argparse
import sys
import traceback
from pathlib import Path

import _startup

_startup.prepare(needs=['torch'])

import torch

STACK = ('mmcv', 'mmengine', 'mmdet', 'mmdet3d', 'spconv')


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--torch-only',
        action='store_true',
        help='only checks that need no packages but torch and numpy: voxels, attention, decoder, '
        'two processes',
    )
    parser.add_argument('--json', type=Path, help='file for all errors and tracebacks')
    return parser


def import_package(*, torch_only: bool) -> str | None:
    """Import this project; without mmcv, spconv and others if they are not wanted or do not import.

    Returns:
        the traceback of a failed import.
    """
    trace = None
    if not torch_only:
        try:
            import projects.cmt_aqr  # noqa: F401
        except Exception:
            trace = traceback.format_exc()
            for name in [name for name in sys.modules if name.startswith('projects.cmt_aqr')]:
                del sys.modules[name]
    if torch_only or trace:
        sys.modules.update(dict.fromkeys(STACK))  # None makes their import fail
    return trace


def main(arguments: list[str] | None = None) -> int:
    """Run the checks and print their table.

    Returns:
        the exit status, 1 if a check failed.
    """
    parser = make_parser()
    args = parser.parse_args(arguments)
    trace = import_package(torch_only=args.torch_only)

    from projects.cmt_aqr.cli import entry
    from projects.cmt_aqr.denormals import flush_denormals
    from projects.cmt_aqr.doctor import checks, running
    from projects.cmt_aqr.files import dump_json

    try:
        device = entry.device(args.device)
    except argparse.ArgumentTypeError as error:
        parser.exit(2, f'{parser.prog}: --device {error}\n')
    flush_denormals()
    lines = [] if trace is None else [running.failed_import(trace)]
    for check in checks.checks_of(device, torch_only=args.torch_only):
        print(f'{check.name} ...', file=sys.stderr, flush=True)
        lines.append(running.run_check(check, device))
    print(running.markdown(lines))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        dump_json(args.json, [running.as_data(line) for line in lines])
    return int(any(not line.result.passed for line in lines))


if __name__ == '__main__':
    sys.exit(main())
