"""Gives a run its feature cache."""

from __future__ import annotations

import os

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..freezing import UnfreezeScheduleHook
from . import usage
from .cache import FeatureCache
from .fixed_parts import module_names, moving_module
from .store import FeatureStore

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
        ValueError: before training, a schedule is to let a cached part train, or images are masked
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
        cache = usage.begin(model, self.store, _datasets(runner))
        _check_schedules(runner, cache)

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
        usage.end(_detector(runner), _datasets(runner))

    def before_val(self, runner: Runner) -> None:
        """Begin to use the cache, unless training has begun to."""
        if not self._training:
            model = _detector(runner)
            model.eval()
            usage.begin(model, self.store, _datasets(runner))

    def after_val(self, runner: Runner) -> None:
        """Log how much was read, and end the use of the cache unless training goes on."""
        _detector(runner).feature_cache.log_counts()
        if not self._training:
            usage.end(_detector(runner), _datasets(runner))

    before_test = before_val
    after_test = after_val


def _detector(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _datasets(runner: Runner) -> list[object]:
    """Of all data loaders that have been built."""
    loaders = [getattr(getattr(runner, loop), 'dataloader', None) for loop in _LOOPS]
    return [loader.dataset for loader in loaders if hasattr(loader, 'dataset')]


def _check_schedules(runner: Runner, cache: FeatureCache) -> None:
    cached = {name: b for b, part in cache.parts.items() for name in module_names(b, part)}
    for hook in runner.hooks:
        if isinstance(hook, UnfreezeScheduleHook) and hook.module.split('.')[0] in cached:
            raise ValueError(
                f'UnfreezeScheduleHook is to let {hook.module} train, but the features of '
                f'{cached[hook.module.split(".")[0]]} are cached: leave out one of the two'
            )
