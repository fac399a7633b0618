"""Score a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``."""

import argparse
from collections.abc import Mapping

import _startup

_startup.prepare()

from mmengine.config import Config

from projects.cmt_aqr.cli import arguments, checkpoints, config_changes, entry, processes
from projects.cmt_aqr.inference import fold_for_inference
from projects.cmt_aqr.process_group import leave_process_group


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser('Score a checkpoint')
    parser.add_argument('checkpoint', help='file or URL of the weights')
    parser.add_argument(
        '--allow-mismatch',
        action='store_true',
        help='score even if the checkpoint has missing or unexpected weights',
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
        choices=list(config_changes.DROPS),
        help='lose this sensor: short for --failure lidar_drop (no points) and --failure '
        'view_drop (black images)',
    )
    arguments.add_inference_arguments(parser)
    parser.add_argument(
        '--submission',
        metavar='FOLDER',
        help='write results on v1.0-test for the test server to this folder, without scores',
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Read the config, check what it needs, load every weight, and score."""
    processes.start_process(args.local_rank)
    cfg = arguments.read_config(args, cached=['test_dataloader'])
    cfg.load_from, cfg.resume = args.checkpoint, False
    arguments.check_checkpoint(args.checkpoint)
    if args.submission:
        config_changes.format_submission(cfg, args.submission)
    arguments.check_data(cfg, 'test_dataloader')
    failure = config_changes.DROPS[args.drop] if args.drop else args.failure
    if failure:
        config_changes.add_failure(cfg, config_changes.find_failure(cfg, failure))
    processes.start_cpu_processes(cfg)
    score(cfg, allow_mismatch=args.allow_mismatch, inference=arguments.inference_settings(args))
    leave_process_group()


def score(cfg: Config, *, allow_mismatch: bool, inference: Mapping | None) -> None:
    """Run the test.

    Args:
        cfg: config of the test, with the checkpoint as ``load_from``.
        allow_mismatch: whether to score with missing or unexpected weights. The Runner only warns
            of them and would score random weights.
        inference: settings of :func:`fold_for_inference`; None for no optimised copies.
    """
    runner = processes.build_runner(cfg)
    checkpoints.check_fit(runner, complete=True, allow_mismatch=allow_mismatch)
    if inference is not None:
        fold_for_inference(runner.model, **inference)
    runner.test()


if __name__ == '__main__':
    entry.run(main, make_parser())
