"""Train a detector: ``python tools/train.py CONFIG``."""

import argparse

import _startup

_startup.prepare()

from mmengine.config import Config

from projects.cmt_aqr.cli import arguments, config_changes, processes
from projects.cmt_aqr.process_group import leave_process_group
from projects.cmt_aqr.usage_error import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser('Train a detector')
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in mixed precision: float16 on a GPU, bfloat16 on a CPU',
    )
    parser.add_argument(
        '--sync_bn', choices=['none', 'torch', 'mmcv'], default='none', help='synchronise BatchNorm'
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint (default: the latest in the work dir)',
    )
    return parser


def main() -> None:
    """Read the config, check what it needs, and train."""
    parser = make_parser()
    args = parser.parse_args()
    processes.start_process(args.local_rank)
    with arguments.exit_on_usage_error(parser):
        cfg = arguments.read_config(args)
        apply_arguments(cfg, args)
        arguments.check_data(cfg, 'train_dataloader', 'val_dataloader')
    processes.start_cpu_processes(cfg)
    processes.build_runner(cfg).train()
    leave_process_group()


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Change the config by the arguments of training.

    Raises:
        UsageError: an option does not apply to this config or machine, or a checkpoint is
            missing.
    """
    if args.sync_bn != 'none':
        cfg.sync_bn = args.sync_bn
    if args.amp:
        config_changes.use_mixed_precision(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UsageError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('load_from'):
        arguments.check_checkpoint(cfg.load_from)


if __name__ == '__main__':
    main()
