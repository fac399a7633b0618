"""Record what a planner reads: ``python -m benchmarks.planning.record_states CONFIG STATES``.

The detector is frozen and scenes are not augmented, so the decoder's states are the same in every
epoch. :mod:`benchmarks.planning.train_on_states` trains on them.

Shapes: S samples, L decoder layers, Q object queries, C channels.
"""

import argparse
from pathlib import Path

import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from projects.cmt_aqr.cli import arguments, entry, processes
from projects.cmt_aqr.datasets.failures import DrawIndex
from projects.cmt_aqr.detector import CmtDetector
from projects.cmt_aqr.feature_cache import FeatureCacheHook
from projects.cmt_aqr.feature_cache.filling import select_features
from projects.cmt_aqr.files import replacing
from projects.cmt_aqr.hooks.pipelines import transforms_of
from projects.cmt_aqr.progress import Progress
from projects.cmt_aqr.usage_error import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser("Record the decoder's states of a config's training samples")
    parser.add_argument('states', type=Path, help='file for the states')
    return parser


def main(args: argparse.Namespace) -> None:
    """Record the states, and write them beside the name of the detector's checkpoint."""
    processes.start_process(args.local_rank)
    cfg = arguments.read_config(args)
    check(cfg)
    arguments.check_data(cfg, 'train_dataloader')
    runner = processes.build_runner(cfg)
    runner._init_model_weights()
    runner.load_or_resume()
    states = record(runner.model, training_loader(runner))
    args.states.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.states) as partial:
        torch.save(dict(detector=cfg.load_from, states=states), partial)


def check(cfg: Config) -> None:
    """Check that the states of a config's detector are the same in every epoch.

    Raises:
        UsageError: they are not, or the config has no planner or no trained detector.
    """
    planner = cfg.model.get('planner')
    if planner is None or not cfg.get('load_from'):
        raise UsageError('give a config with a model.planner and the load_from of its detector')
    arguments.check_checkpoint(cfg.load_from)
    if planner.type == 'ActionQueryHead' and planner.get('reads') != 'objects':
        raise UsageError(
            'action queries that read tokens change the states with every step: give '
            '--cfg-options model.planner.reads=objects, or train by tools/train.py'
        )
    steps = cfg.train_dataloader.dataset.pipeline
    if any(step.type == 'DrawIndex' and not step.get('variants') for step in steps):
        raise UsageError('every epoch draws other failures: set variants of the DrawIndex')


def training_loader(runner: Runner) -> DataLoader:
    """Each training sample in order, by cached features if the config has a cache."""
    loader = dict(runner.cfg.train_dataloader, persistent_workers=False)
    dataset = DATASETS.build(loader['dataset'])
    for hook in runner.hooks:
        if isinstance(hook, FeatureCacheHook):
            select_features(runner.model, dataset, hook.store, training=True)
    sampler = dict(loader['sampler'], shuffle=False)
    return Runner.build_dataloader({**loader, 'dataset': dataset, 'sampler': sampler})


def record(model: CmtDetector, loader: DataLoader) -> dict[str, Tensor]:
    """States of the decoder and the ego vehicle's future.

    Returns:
        ``hidden`` (S, L, Q, C) and ``query_pos`` (S, Q, C) in half precision, and the inputs of
        :class:`~projects.cmt_aqr.planning.pack.PackEgoFuture`.
    """
    draw_indices = [*transforms_of(loader.dataset, DrawIndex)]
    draws = max((index.variants for index in draw_indices), default=1)
    progress = Progress('states', draws * len(loader))
    batches = []
    model.eval()
    for draw in range(draws):
        for index in draw_indices:
            index.set_epoch(draw)
        for batch in loader:
            batches.append(_states(model, batch))
            progress.move()
    progress.close()
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@torch.no_grad()
def _states(model: CmtDetector, batch: dict) -> dict[str, Tensor]:
    data = model.data_preprocessor(batch, False)
    metas = [sample.metainfo for sample in data['data_samples']]
    states = model.pts_bbox_head(*model.extract_feat(data['inputs']), metas).states
    found = dict(
        hidden=states.hidden.transpose(0, 1).half(),
        query_pos=states.query_pos.half(),
        **data['inputs']['ego'],
    )
    return {name: value.cpu() for name, value in found.items()}


if __name__ == '__main__':
    entry.run(main, make_parser(), resume='the same command starts over')
