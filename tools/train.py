"""Train a detector: ``python tools/train.py CONFIG``."""

import os
import sys
from pathlib import Path

# Idle OpenMP threads must not spin: read by the runtime when torch is first imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from projects.cmt_aqr import entry


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.make_parser('Train a detector')
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
        help="go on from this checkpoint, or from the work dir's latest if none is named",
    )
    return parser


def main() -> None:
    """Read the config, check what it needs, and train."""
    parser = make_parser()
    args = parser.parse_args()
    entry.flush_denormals()
    entry.set_local_rank(args.local_rank)
    try:
        cfg = entry.read_config(args)
        apply_arguments(cfg, args)
        entry.check_data(cfg, 'train_dataloader', 'val_dataloader')
    except entry.UsageError as error:
        parser.exit(2, f'{parser.prog}: {error}\n')
    entry.start_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.train()
    entry.end_processes()


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Change the config as the arguments of training say.

    Raises:
        entry.UsageError: an option does not apply to this config or machine, or a checkpoint is
            missing.
    """
    if args.sync_bn != 'none':
        cfg.sync_bn = args.sync_bn
    if args.amp:
        entry.use_mixed_precision(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise entry.UsageError(
                '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('load_from'):
        entry.check_checkpoint(cfg.load_from)


if __name__ == '__main__':
    main()
