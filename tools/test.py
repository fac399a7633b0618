"""Score a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``."""

import os
import sys
from pathlib import Path

# Idle OpenMP threads must not spin: read by the runtime when torch is first imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import functools

from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from projects.cmt_aqr import entry


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.make_parser('Score a checkpoint')
    parser.add_argument('checkpoint', help='file or address of the weights')
    parser.add_argument(
        '--allow-mismatch',
        action='store_true',
        help='score even if the checkpoint lacks weights of the model or has others',
    )
    failures = parser.add_mutually_exclusive_group()
    failures.add_argument(
        '--failure',
        metavar='NAME[_SEVERITY]',
        help='score under a sensor failure, such as fog_2; the names are those of '
        'tools/test_robustness.py --suite all; without a severity, the mildest',
    )
    failures.add_argument(
        '--drop',
        choices=list(entry.DROPS),
        help='lose this sensor: short for --failure lidar_drop (no points) and --failure '
        'view_drop (black images)',
    )
    parser.add_argument(
        '--submission',
        metavar='FOLDER',
        help='write results of v1.0-test for the test server into this folder; no scores',
    )
    return parser


def main() -> None:
    """Read the config, check what it needs, load every weight, and score."""
    parser = make_parser()
    args = parser.parse_args()
    entry.flush_denormals()
    entry.set_local_rank(args.local_rank)
    try:
        cfg = entry.read_config(args)
        cfg.load_from, cfg.resume = args.checkpoint, False
        entry.check_checkpoint(args.checkpoint)
        if args.submission:
            entry.format_submission(cfg, args.submission)
        entry.check_data(cfg, 'test_dataloader')
        failure = entry.DROPS[args.drop] if args.drop else args.failure
        if failure:
            entry.add_failure(cfg, entry.find_failure(cfg, failure))
    except entry.UsageError as error:
        parser.exit(2, f'{parser.prog}: {error}\n')
    entry.start_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    # The Runner only warns of keys that do not match: it would score random weights.
    strict = not args.allow_mismatch
    runner.load_checkpoint = functools.partial(runner.load_checkpoint, strict=strict)
    runner.test()
    entry.end_processes()


if __name__ == '__main__':
    main()
