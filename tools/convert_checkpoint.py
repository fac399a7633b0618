"""Convert a published checkpoint for a config of this project.

    python tools/convert_checkpoint.py SOURCE CONFIG --out FILE

SOURCE is a checkpoint of CMT or MoME, or pre-trained weights of VoVNet or ResNet, which fill only
the image backbone. FILE loads into the model of CONFIG without unexpected weights or other shapes.
Weights that SOURCE lacks, such as those of the router, are listed and keep their initial values.
"""

import argparse
from pathlib import Path

import _startup

_startup.prepare()

from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from projects.cmt_aqr.cli import arguments, entry
from projects.cmt_aqr.conversion import ConversionError, convert, read_source, write_checkpoint
from projects.cmt_aqr.usage_error import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='published file')
    parser.add_argument('config', help='config file of the model to fill')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='file to write')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=arguments.ConfigOptions,
        help='settings to change in the config',
    )
    entry.add_screen_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Read, convert and write; print a report on every key."""
    check_files(args)
    print(run(args, build_model(read_config(args))))


def check_files(args: argparse.Namespace) -> None:
    """Check that the source and the output folder exist.

    Raises:
        UsageError: a file or folder does not exist, or the source would be overwritten.
    """
    if not args.source.is_file():
        raise UsageError(f'source {args.source} does not exist (in {Path.cwd()})')
    if not args.out.parent.is_dir():
        raise UsageError(f'--out: the folder {args.out.parent} does not exist')
    if args.out.is_dir():
        raise UsageError(f'--out: {args.out} is a folder; name a file')
    if args.out.exists() and args.out.samefile(args.source):
        raise UsageError('--out: this is the source itself; name another file')


def read_config(args: argparse.Namespace) -> Config:
    """The config of the model.

    Raises:
        UsageError: it does not exist, or has no model.
    """
    others = dict(work_dir=None, seed=None, deterministic=False, launcher='none')
    cfg = arguments.read_config(argparse.Namespace(**vars(args), **others))
    if not cfg.get('model'):
        raise UsageError(f'config {args.config} has no model')
    return cfg


def build_model(cfg: Config) -> nn.Module:
    """The model, without loading initial weights named in its config."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
        return MODELS.build(cfg.model)


def run(args: argparse.Namespace, model: nn.Module) -> str:
    """Convert and write the file; return a report on every key.

    Raises:
        UsageError: the source cannot be read or does not fit the model.
    """
    try:
        source = read_source(args.source)
        conversion = convert(source.state, model)
    except ConversionError as error:
        raise UsageError(f'{args.source}: {error}') from error
    write_checkpoint(args.out, conversion, source, config=args.config)
    where = f'under {source.found_under!r}' if source.found_under else 'the whole file'
    beside = f', beside it unread: {", ".join(source.beside)}' if source.beside else ''
    wrapped = '\nnames without their "module."' if source.was_wrapped else ''
    return (
        f'{args.source}: {where}{beside}{wrapped}\n{conversion}\n'
        f'{args.out}: {len(conversion.state)} tensors, {args.out.stat().st_size / 1e6:.1f} MB'
    )


if __name__ == '__main__':
    entry.run(main, make_parser())
