"""Compute the features of a config's frozen backbones: ``python tools/cache_features.py CONFIG``.

Training then reads them in place of points and images. Existing features are not computed again.
"""

import argparse
import copy

import _startup

_startup.prepare()

from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.model import is_model_wrapper

from projects.cmt_aqr.cli import arguments, checkpoints, entry, processes
from projects.cmt_aqr.feature_cache import FeatureCacheHook, fill
from projects.cmt_aqr.feature_cache.filling import select_features
from projects.cmt_aqr.process_group import leave_process_group
from projects.cmt_aqr.usage_error import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser("Compute the features of a config's frozen backbones")
    parser.add_argument(
        'checkpoint', nargs='?', help="weights of the backbones; by default the config's load_from"
    )
    parser.add_argument(
        '--data',
        nargs='+',
        choices=['train', 'val', 'test'],
        default=['train', 'val'],
        help='data loaders whose samples are computed',
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Read the config, check what it needs, and fill the cache."""
    processes.start_process(args.local_rank)
    loaders = [f'{name}_dataloader' for name in args.data]
    cfg = arguments.read_config(args)
    if not has_cache(cfg):
        raise UsageError(
            f'config {args.config} has no feature_cache; to add it: '
            '--cfg-options feature_cache.directory=work_dirs/features'
        )
    cfg.resume, cfg.load_from = False, args.checkpoint or cfg.get('load_from')
    if not cfg.load_from:
        raise UsageError(
            f'config {args.config} has no load_from: name the checkpoint of the frozen '
            'backbones after the config'
        )
    arguments.check_checkpoint(cfg.load_from)
    checkpoints.check_initial_weights(cfg)
    arguments.check_data(cfg, *loaders)
    processes.start_cpu_processes(cfg)
    fill_cache(cfg, loaders)
    leave_process_group()


def has_cache(cfg: Config) -> bool:
    """Whether the config sets ``feature_cache``, directly or in a config that a run wrote."""
    return any(hook['type'] == FeatureCacheHook.__name__ for hook in cfg.get('custom_hooks') or [])


def fill_cache(cfg: Config, loaders: list[str]) -> None:
    """Compute the features of all samples of some data loaders."""
    runner = processes.build_runner(cfg)
    runner._init_model_weights()
    runner.load_or_resume()
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    (store,) = (hook.store for hook in runner.hooks if isinstance(hook, FeatureCacheHook))
    for name in loaders:
        for config in arguments.datasets_of(cfg, name):
            dataset = DATASETS.build(copy.deepcopy(config))
            select_features(model, dataset, store, training=name == 'train_dataloader')
            fill(model, dataset, store, num_workers=cfg[name].num_workers)


if __name__ == '__main__':
    entry.run(main, make_parser(), resume='the same command computes the rest')
