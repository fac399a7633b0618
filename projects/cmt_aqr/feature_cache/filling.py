"""Filling a cache ahead of the runs that will use it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..datasets.failures import DrawIndex
from . import usage
from .cache import FeatureCache
from .store import FeatureStore
from .transform import CachedFeatures


class Plan(NamedTuple):
    """What a dataset wants of the cache.

    Attributes:
        wanted: keys of entries by branch; samples and draws that look alike share an entry.
        missing: those that are not there.
        bytes: that they will take.
    """

    wanted: dict[str, set[str]]
    missing: dict[str, set[str]]
    bytes: int

    def __str__(self) -> str:
        parts = [
            f'{branch} {len(self.missing[branch])} of {len(keys)}'
            for branch, keys in self.wanted.items()
        ]
        return f'{" and ".join(parts)} entries to compute, {self.bytes / 1e9:.3f} GB'


def fill(
    model: nn.Module, loader: DataLoader, store: FeatureStore, *, training: bool, name: str
) -> Plan:
    """Compute what a dataset wants of the cache, in all its draws; it says before how much that is.

    Args:
        model: a detector with its weights.
        loader: of a dataset whose pipeline has a cache.
        store: to fill.
        training: use the training mode, and so the cache as a training run does.
        name: of the loader, for the log.

    Raises:
        ValueError: nothing of the model is frozen, or the entries do not fit below the limit of the
            store; and see :func:`.usage.begin`.
    """
    model.train(training)
    cache = usage.begin(model, store, [loader.dataset])
    if not cache.parts:
        raise ValueError(f'{name}: no branch of the model is frozen from the input on')
    try:
        plan = _plan(model, loader, cache)
        print_log(f'feature cache, {name}: {plan}', logger='current')
        _check_room(store, plan)
        _compute(model, loader)
    finally:
        usage.end(model, [loader.dataset])
    return plan


def loader_config(cfg: Config, name: str, dataset: Mapping) -> dict:
    """Config of a loader that gives each sample of a dataset once.

    Args:
        cfg: of a run.
        name: of the data loader in it, whose batches and workers are taken over.
        dataset: config of a dataset.
    """
    return dict(
        copy.deepcopy(cfg[name]),
        dataset=copy.deepcopy(dataset),
        sampler=dict(type='DefaultSampler', shuffle=False),
        drop_last=False,
        persistent_workers=False,
    )


def prepare(runner: Runner) -> nn.Module:
    """The model of a run with the weights with which it would begin."""
    runner._init_model_weights()
    runner.load_or_resume()
    return runner.model


def _compute(model: nn.Module, loader: DataLoader) -> None:
    steps = len(_draw_numbers(loader.dataset)) * len(loader)
    bar = ProgressBar(steps) if is_main_process() else None
    for _ in _draws(loader.dataset):
        for batch in loader:
            _extract(model, batch)
            if bar is not None:
                bar.update()


def _extract(model: nn.Module, batch: Mapping) -> None:
    with torch.no_grad():
        model.extract_feat(model.data_preprocessor(batch, model.training)['inputs'])


def _draws(dataset: Dataset) -> Iterator[int]:
    """Let the dataset give one draw of its samples after the other."""
    for draw in _draw_numbers(dataset):
        for index in _draw_indices(dataset):
            index.set_epoch(draw)
        yield draw


def _draw_numbers(dataset: Dataset) -> range:
    """All draws of a sample; without a `DrawIndex` there is one."""
    return range(max((index.variants for index in _draw_indices(dataset)), default=1))


def _draw_indices(dataset: Dataset) -> list[DrawIndex]:
    return [step for step in usage.pipeline_steps(dataset) if isinstance(step, DrawIndex)]


def _plan(model: nn.Module, loader: DataLoader, cache: FeatureCache) -> Plan:
    keys: dict[str, set[str]] = {branch: set() for branch in cache.parts}
    for _ in _draws(loader.dataset):
        for index in range(len(loader.dataset)):
            for branch, key in _keys(loader.dataset, index):
                if branch in keys:
                    keys[branch].add(key)
    store = cache.store
    # One sample tells how large an entry is.
    _extract(model, loader.collate_fn([loader.dataset[0]]))
    missing, size = {}, 0
    for branch, part in cache.parts.items():
        paths = {key: store.path(part.folder, key) for key in keys[branch]}
        missing[branch] = {key for key, path in paths.items() if not path.is_file()}
        sizes = (path.stat().st_size for path in paths.values() if path.is_file())
        size += len(missing[branch]) * next(sizes, store.max_bytes + 1)
    return Plan(keys, missing, size)


def _keys(dataset: Dataset, index: int) -> Iterator[tuple[str, str]]:
    """Branch and key of what a sample wants, without loading it."""
    results = dataset.get_data_info(index)
    steps = dataset.pipeline.transforms
    for step in itertools.takewhile(lambda step: not isinstance(step, CachedFeatures), steps):
        results = step(results)
    for step in steps:
        if isinstance(step, CachedFeatures):
            yield step.branch, step.key(results)


def _check_room(store: FeatureStore, plan: Plan) -> None:
    free = store.max_bytes - store.size()
    if plan.bytes > free:
        raise ValueError(
            f'{plan}, but there is room for {max(free, 0) / 1e9:.3f} GB below the max_gigabytes of '
            f'{store.max_bytes / 1e9:g}: raise that, or delete folders of {store.directory}'
        )
