"""Train a planner on states: ``python -m benchmarks.planning.train_on_states CONFIG STATES``.

The detector is frozen and scenes are not augmented, so its states are the same in every epoch. They
are computed once, and a planner that reads nothing else then takes thousands of steps in minutes on
a CPU. The checkpoint is one of the config, for `tools/test.py` and `tools/test_robustness.py`.

Shapes: S samples, L decoder layers, Q object queries, T waypoints, C channels.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner, save_checkpoint
from torch import Tensor, nn
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

WARM_UP = 0.05
"""share of the steps in which the learning rate rises"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser('Train a planner on recorded decoder states')
    parser.add_argument('states', type=Path, help='file of recorded states; made if it is missing')
    parser.add_argument('--steps', type=entry.number(int, 1), default=4000)
    parser.add_argument('--batch-size', type=entry.number(int, 1), default=32)
    return parser


def main(args: argparse.Namespace) -> None:
    """Record the states, or read those of an earlier run, train, and write a checkpoint."""
    processes.start_process(args.local_rank)
    cfg = arguments.read_config(args)
    check(cfg)
    arguments.check_data(cfg, 'train_dataloader')
    runner = processes.build_runner(cfg)
    runner._init_model_weights()
    runner.load_or_resume()
    model = runner.model
    if not args.states.exists():
        states = record(model, training_loader(runner))
        with replacing(args.states) as partial:
            torch.save(dict(detector=cfg.load_from, states=states), partial)
    recorded = torch.load(args.states)
    if recorded['detector'] != cfg.load_from:
        raise UsageError(
            f'{args.states} has the states of {recorded["detector"]}, not of {cfg.load_from}; name '
            'another file'
        )
    states = recorded['states']
    fit(model, states, cfg.optim_wrapper, steps=args.steps, batch_size=args.batch_size)
    with replacing(Path(cfg.work_dir) / 'planner.pth') as partial:
        save_checkpoint(dict(state_dict=model.state_dict()), str(partial))


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


def fit(
    model: CmtDetector,
    states: dict[str, Tensor],
    optim_wrapper: dict,
    *,
    steps: int,
    batch_size: int,
) -> None:
    """Trains the planner of a detector on random batches of recorded states.

    The learning rates are those of the optimizer wrapper, after a warm-up along a cosine to zero.
    """
    optim = build_optim_wrapper(model, optim_wrapper)
    rates = [group['lr'] for group in optim.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optim.optimizer, rates, total_steps=steps, pct_start=WARM_UP, cycle_momentum=False
    )
    progress, device = Progress('steps', steps), model.data_preprocessor.device
    model.planner.train()
    for step in range(steps):
        chosen = torch.randint(len(states['hidden']), (batch_size,))
        batch = {name: value[chosen].to(device) for name, value in states.items()}
        loss = model.planner.loss(plan(model.planner, batch), batch)['loss_plan']
        optim.update_params(loss)
        schedule.step()
        progress.move(f'loss {loss.item():.3f}' if step % 100 == 0 else '')
    progress.close()
    print_log(f'loss of the last step {loss.item():.3f}', logger='current')


def plan(planner: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(B, T, 3): plan from recorded states."""
    hidden = batch['hidden'].float().transpose(0, 1)
    states = SimpleNamespace(hidden=hidden, query_pos=batch['query_pos'].float())
    return planner(SimpleNamespace(states=states), None, batch)


if __name__ == '__main__':
    entry.run(main, make_parser(), resume='the same command goes on')
