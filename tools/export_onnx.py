"""Export a detector to ONNX: ``python tools/export_onnx.py CONFIG CHECKPOINT --out FOLDER``.

Writes ``bev.onnx``, ``images.onnx`` and ``head.onnx``, and compares each with PyTorch on random
inputs, for batches of one and of three. docs/export.md shows how to join them.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import _startup

_startup.prepare()

import torch

import projects.cmt_aqr  # noqa: F401  (registers what configs name)
from projects.cmt_aqr.cli import arguments, entry
from projects.cmt_aqr.cli.checkpoints import check_checkpoint
from projects.cmt_aqr.doctor.decoder_inputs import NUM_CAMERAS
from projects.cmt_aqr.export import TOLERANCE, build_for_export, deviation, export_part, parts_of
from projects.cmt_aqr.usage_error import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser(__doc__)
    parser.add_argument('checkpoint', help='file or URL of the weights')
    parser.add_argument('--out', type=Path, required=True, help='folder for the files')
    parser.add_argument(
        '--cameras',
        type=entry.number(int, 1),
        default=NUM_CAMERAS,
        metavar='V',
        help='number of cameras of the rig (default: %(default)s)',
    )
    parser.add_argument(
        '--check',
        nargs='+',
        type=entry.number(int, 1),
        default=[1, 3],
        metavar='N',
        help='batches to compare with',
    )
    return parser


def main(args: argparse.Namespace) -> int | None:
    """Export all parts, then compare them; the status is 1 if one deviates."""
    for package in ('onnx', 'onnxruntime'):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f'{package} is not installed: pip install -r requirements/export.txt')
    cfg = arguments.read_config(args, cached=[])
    check_checkpoint(args.checkpoint)
    model = build_for_export(cfg, args.checkpoint)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, part in parts_of(model, cfg, batch_size=2, num_cameras=args.cameras).items():
        export_part(part, args.out / f'{name}.onnx')
    worst = 0.0
    for batch_size in args.check:
        parts = parts_of(model, cfg, batch_size=batch_size, num_cameras=args.cameras)
        for name, part in parts.items():
            found = deviation(part, args.out / f'{name}.onnx')
            worst = max(worst, found)
            print(f'{args.out / name}.onnx: batch of {batch_size}, deviation {found:.1e}')
    if worst <= TOLERANCE:
        return None
    print(f'export_onnx.py: a deviation above {TOLERANCE:g}', file=sys.stderr)
    return 1


if __name__ == '__main__':
    entry.run(main, make_parser())
