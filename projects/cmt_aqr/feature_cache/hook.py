"""Gives a run its feature cache."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..freezing import UnfreezeScheduleHook
from .cache import FeatureCache
from .fixed_parts import find_fixed_parts, module_names, moving_module
from .store import FeatureStore
from .transform import CachedFeatures

_LOOPS = ('_train_loop', '_val_loop', '_test_loop')


@HOOKS.register_module()
class FeatureCacheHook(Hook):
    """Lets the detector of a run read the features of what is frozen, and keep what it computes.

    In a training run a branch is cached up to the last stage that is frozen from the input on: the
    backbone's maps under recipe A and B, the neck's under D. In a run that only validates or tests
    it is cached as far as its config freezes it, and at least up to the backbone, so that models
    that were trained on the same backbones share their features. The name of the folder holds the
    digest of the weights, so that features of others are never found.

    The model's state dict, its copies and its checkpoints are as without.

    Args:
        directory: see :class:`.store.FeatureStore`, also for the other two.
        dtype: of the features on disk.
        max_gigabytes: of all features on disk.

    Raises:
        ValueError: before training, a schedule will let a cached part train, or images are masked
            at random.
        RuntimeError: a cached part has begun to train.
    """

    # After the UnfreezeScheduleHook has frozen what its first phase says.
    priority = 'VERY_LOW'

    def __init__(
        self,
        *,
        directory: str | os.PathLike,
        dtype: str = 'float16',
        max_gigabytes: float = 100.0,
    ) -> None:
        self.store = FeatureStore(directory=directory, dtype=dtype, max_gigabytes=max_gigabytes)
        self._training = False

    def before_train(self, runner: Runner) -> None:
        """Find what is frozen, and begin to use its features."""
        self._training = True
        model = _detector(runner)
        model.train()
        self._begin(runner, model)
        self._check_schedules(runner, model.feature_cache)

    def before_train_epoch(self, runner: Runner) -> None:
        """See that what is cached is still frozen."""
        model = _detector(runner)
        model.train()
        for branch, part in model.feature_cache.parts.items():
            moving = moving_module(model, branch, part)
            if moving is not None:
                raise RuntimeError(
                    f'{moving} has begun to train in epoch {runner.epoch}, but the features of '
                    f'{branch} come from the cache: leave feature_cache out of this config'
                )

    def after_train_epoch(self, runner: Runner) -> None:
        """Log how much of the features was read."""
        _detector(runner).feature_cache.log_counts()

    def after_train(self, runner: Runner) -> None:
        """End the use of the cache."""
        self._training = False
        self._end(runner)

    def before_val(self, runner: Runner) -> None:
        """Begin to use the cache, unless training has begun to."""
        self._begin_evaluation(runner)

    def before_test(self, runner: Runner) -> None:
        """Begin to use the cache."""
        self._begin_evaluation(runner)

    def after_val(self, runner: Runner) -> None:
        """Log how much was read, and end the use of the cache unless training goes on."""
        _detector(runner).feature_cache.log_counts()
        if not self._training:
            self._end(runner)

    def after_test(self, runner: Runner) -> None:
        """Log how much was read, and end the use of the cache."""
        self.after_val(runner)

    def _begin_evaluation(self, runner: Runner) -> None:
        if not self._training:
            model = _detector(runner)
            model.eval()
            self._begin(runner, model)

    def _begin(self, runner: Runner, model: nn.Module) -> None:
        parts = find_fixed_parts(model, dtype=self.store.dtype)
        model.feature_cache = FeatureCache(self.store, parts)
        for branch, part in parts.items():
            print_log(
                f'feature cache: {branch} up to {module_names(branch, part)[-1]} in '
                f'{self.store.directory / part.folder}, {self.store.count(part.folder)} entries of '
                f'{self.store.size(part.folder) / 1e9:.2f} GB',
                logger='current',
            )
        for transform in _transforms(runner):
            part = parts.get(transform.branch)
            transform.use(part and part.folder)

    def _end(self, runner: Runner) -> None:
        _detector(runner).feature_cache = None
        for transform in _transforms(runner):
            transform.use(None)

    def _check_schedules(self, runner: Runner, cache: FeatureCache) -> None:
        cached = {name: b for b, part in cache.parts.items() for name in module_names(b, part)}
        for hook in runner.hooks:
            module = getattr(hook, 'module', None)
            if isinstance(hook, UnfreezeScheduleHook) and module.split('.')[0] in cached:
                raise ValueError(
                    f'UnfreezeScheduleHook lets {module} train, but the features of '
                    f'{cached[module.split(".")[0]]} are cached: leave out one of the two'
                )


def _detector(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _transforms(runner: Runner) -> Iterator[CachedFeatures]:
    """Those in the pipelines of all data loaders that have been built."""
    for name in _LOOPS:
        loader = getattr(getattr(runner, name), 'dataloader', None)
        yield from pipeline_transforms(getattr(loader, 'dataset', None))


def pipeline_transforms(dataset: object) -> Iterator[CachedFeatures]:
    """Those in the pipeline of a dataset, and of the datasets that it wraps."""
    for inner in [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())]:
        if inner is not None:
            yield from pipeline_transforms(inner)
    for step in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if isinstance(step, CachedFeatures):
            yield step
