"""Compute the features of a config's frozen backbones: ``python tools/cache_features.py CONFIG``.

Training and testing fill the cache too, as they go; this does so before, and says how much it will
take. What is there already is not computed again.
"""

import argparse
from collections.abc import Sequence

import _startup

_startup.prepare()

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from projects.cmt_aqr.cli import arguments, processes
from projects.cmt_aqr.feature_cache import FeatureCacheHook
from projects.cmt_aqr.feature_cache.filling import fill, loader_config, prepare
from projects.cmt_aqr.process_group import leave_process_group
from projects.cmt_aqr.usage_error import UsageError

LOADERS = {name: f'{name}_dataloader' for name in ('train', 'val', 'test')}


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser("Compute the features of a config's frozen backbones")
    parser.add_argument('--checkpoint', help="weights, in place of the config's load_from")
    parser.add_argument(
        '--data',
        nargs='+',
        choices=list(LOADERS),
        default=['train', 'val'],
        help='of these loaders',
    )
    return parser


def main() -> None:
    """Read the config, check what it needs, and fill the cache."""
    parser = make_parser()
    args = parser.parse_args()
    processes.start_process(args.local_rank)
    names = [LOADERS[name] for name in args.data]
    with arguments.exit_on_usage_error(parser):
        cfg = arguments.read_config(args)
        if not has_cache(cfg):
            raise UsageError(
                f'config {args.config} has no feature_cache; to add it: '
                '--cfg-options feature_cache.directory=work_dirs/features'
            )
        cfg.resume, cfg.load_from = False, args.checkpoint or cfg.get('load_from')
        if cfg.load_from:
            arguments.check_checkpoint(cfg.load_from)
        arguments.check_data(cfg, *names)
    processes.start_cpu_processes(cfg)
    with arguments.exit_on_usage_error(parser):
        fill_cache(cfg, names)
    leave_process_group()


def fill_cache(cfg: Config, names: Sequence[str]) -> None:
    """Compute the features of all samples of the named dataloaders.

    Raises:
        UsageError: the cache is too small.
    """
    runner = Runner.from_cfg(cfg)
    model = prepare(runner)
    model = model.module if is_model_wrapper(model) else model
    (store,) = (hook.store for hook in runner.hooks if isinstance(hook, FeatureCacheHook))
    try:
        for name in names:
            for dataset in arguments.datasets_of(cfg, name):
                loader = runner.build_dataloader(loader_config(cfg, name, dataset))
                fill(model, loader, store, training=name == LOADERS['train'], name=name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def has_cache(cfg: Config) -> bool:
    """Whether the run will have a feature cache."""
    return any(hook['type'] == FeatureCacheHook.__name__ for hook in cfg.get('custom_hooks') or [])


if __name__ == '__main__':
    main()
