"""Check what a run will freeze before starting it: ``python tools/verify_freeze.py CONFIG``.

Model, optimizer and schedule are built from the config and the checkpoint is loaded, but nothing is
trained. The exit status is 0 if the run would start, 1 if it would be stopped and 2 if the command
line is wrong.
"""

import argparse
import sys
from pathlib import Path

import _startup

_startup.prepare()

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from projects.cmt_aqr.cli import arguments, checkpoints, entry
from projects.cmt_aqr.files import dump_json
from projects.cmt_aqr.freezing.verify import verify
from projects.cmt_aqr.usage_error import UsageError

DEFAULT_EPOCH_LENGTH = 1000
NEEDED = ('model', 'optim_wrapper', 'train_cfg', 'train_dataloader')


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser('Check what a run will freeze, without training')
    parser.add_argument(
        'checkpoint', nargs='?', help="weights to load (default: the config's load_from)"
    )
    parser.add_argument(
        '--epoch-length',
        type=int,
        help='iterations per epoch, on which the learning rates depend (default: those of one '
        f'process on the training data, or {DEFAULT_EPOCH_LENGTH} if the data is missing)',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report to this file')
    return parser


def main(args: argparse.Namespace) -> int:
    """Read the config, check the run that it describes, and print a report."""
    cfg = read_config(args)
    epoch_length, origin = find_epoch_length(cfg, args.epoch_length)
    report = {
        'config': args.config,
        'checkpoint': cfg.get('load_from'),
        'epoch_length': epoch_length,
    }
    try:
        found = verify(cfg, epoch_length=epoch_length)
    except ValueError as error:
        report |= {'state': 'refused', 'error': str(error)}
        answer = f'{Path(sys.argv[0]).name}: {args.config} is refused: {error}'
    else:
        report |= found.describe()
        answer = '\n'.join(map(str, found.violations))
        print(f'\n{args.config} with {cfg.get("load_from") or "no checkpoint"}')
        print(f'an epoch has {epoch_length} iterations, {origin}\n\n{found}\n')
    if args.json:
        dump_json(args.json, report)
    if answer:
        print(answer, file=sys.stderr)
        return 1
    print('nothing is wrong')
    return 0


def read_config(args: argparse.Namespace) -> Config:
    """The config with the checkpoint to load.

    Raises:
        UsageError: the config trains nothing, or a file or a folder does not exist.
    """
    if args.epoch_length is not None and args.epoch_length < 1:
        raise UsageError(f'--epoch-length is {args.epoch_length}; it must be 1 or greater')
    if args.json and not args.json.parent.is_dir():
        raise UsageError(f'--json: the folder {args.json.parent} does not exist')
    cfg = arguments.read_config(args)
    missing = [name for name in NEEDED if not cfg.get(name)]
    if missing:
        raise UsageError(f'config {args.config} trains nothing: it has no {", ".join(missing)}')
    if args.checkpoint:
        cfg.load_from = args.checkpoint
    if cfg.get('load_from'):
        arguments.check_checkpoint(cfg.load_from)
    checkpoints.check_initial_weights(cfg)
    return cfg


def find_epoch_length(cfg: Config, given: int | None) -> tuple[int, str]:
    """Iterations per epoch, and the origin of the number."""
    if given is not None:
        return given, 'as given'
    try:
        arguments.check_data(cfg, 'train_dataloader')
    except UsageError:
        return DEFAULT_EPOCH_LENGTH, 'assumed, for the training data is not here (--epoch-length)'
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        dataloader = Runner.build_dataloader(cfg.train_dataloader)
    return len(dataloader), 'as one process makes of the training data (--epoch-length)'


if __name__ == '__main__':
    entry.run(main, make_parser())
