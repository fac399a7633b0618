"""Train a detector: ``python tools/train.py CONFIG``."""

import argparse

import _startup

_startup.prepare()

from mmengine.config import Config

from projects.cmt_aqr.cli import arguments, checkpoints, config_changes, entry, processes
from projects.cmt_aqr.cli.work_dir import claim_work_dir
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
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace the checkpoints of another run in the work dir',
    )
    parser.add_argument(
        '--allow-mismatch',
        action='store_true',
        help='train even if weights of load_from do not fit the model; these start at random',
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Read the config, check what it needs, and train."""
    processes.start_process(args.local_rank)
    cfg = arguments.read_config(args)
    apply_arguments(cfg, args)
    arguments.check_data(cfg, 'train_dataloader', 'val_dataloader')
    with claim_work_dir(cfg.work_dir, resume=args.resume is not None, overwrite=args.overwrite):
        processes.start_cpu_processes(cfg)
        train(cfg, allow_mismatch=args.allow_mismatch)
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
        checkpoints.resume_from(cfg, args.resume)
    elif cfg.get('load_from'):
        arguments.check_checkpoint(cfg.load_from)
    checkpoints.check_initial_weights(cfg)


def train(cfg: Config, *, allow_mismatch: bool) -> None:
    """Build a Runner and train.

    Args:
        cfg: config of the run.
        allow_mismatch: whether weights of ``load_from`` may have other shapes than the model's.
    """
    runner = processes.build_runner(cfg)
    checkpoints.check_fit(runner, complete=False, allow_mismatch=allow_mismatch)
    runner.train()


if __name__ == '__main__':
    entry.run(main, make_parser(), resume='to go on from the last checkpoint, add --resume')
