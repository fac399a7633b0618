"""Export a detector to ONNX: ``python tools/export_onnx.py CONFIG CHECKPOINT --out FOLDER``.

Writes ``bev.onnx``, ``images.onnx`` and ``head.onnx``, and compares each with PyTorch on random
inputs, for a batch of one and of three. docs/export.md shows how to join them.
"""

import argparse
from pathlib import Path

import _startup

_startup.prepare()
_startup.prepare(needs='onnx')

import torch
from mmengine.config import Config, DictAction

import projects.cmt_aqr  # noqa: F401  (registers what configs name)
from projects.cmt_aqr.cli import arguments
from projects.cmt_aqr.export import TOLERANCE, build_for_export, deviation, export_part, parts_of
from projects.cmt_aqr.usage_error import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='file or URL of the weights')
    parser.add_argument('--out', type=Path, required=True, help='folder for the files')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, help='settings to change'
    )
    return parser


def main() -> None:
    """Export all parts, then compare them; the status is 1 if one deviates."""
    parser = make_parser()
    args = parser.parse_args()
    with arguments.exit_on_usage_error(parser):
        if not Path(args.config).is_file():
            raise UsageError(f'config {args.config} does not exist (in {Path.cwd()})')
        arguments.check_checkpoint(args.checkpoint)
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    model = build_for_export(cfg, args.checkpoint)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, part in parts_of(model, cfg, batch_size=2).items():
        export_part(part, args.out / f'{name}.onnx')
    worst = 0.0
    for batch_size in (1, 3):
        for name, part in parts_of(model, cfg, batch_size=batch_size).items():
            found = deviation(part, args.out / f'{name}.onnx')
            worst = max(worst, found)
            print(f'{args.out / name}.onnx: batch of {batch_size}, off by {found:.1e}')
    if not worst <= TOLERANCE:
        parser.exit(1, f'{parser.prog}: more than {TOLERANCE:g} off\n')


if __name__ == '__main__':
    main()
