"""Hook that selects the features of a run's model and checks or fills the cache."""

import os

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from ..freezing import UnfreezeScheduleHook
from ..running_hooks import unwrap
from .filling import cached_datasets, check_filled, fill, select_features
from .frozen_features import BRANCHES
from .store import FeatureStore


@HOOKS.register_module()
class FeatureCacheHook(Hook):
    """Lets the pipelines of a run read the features of its model's frozen backbones or necks.

    Before training it checks that the features are frozen and in the cache. A test, or a validation
    without training, first computes those that are missing.

    Args:
        directory: of the :class:`.store.FeatureStore`.
        dtype: of the features on disk: 'float16', 'bfloat16' or 'float32'.
        max_gigabytes: limit for all features on disk.

    Raises:
        ValueError: before training, a cached branch trains or a schedule would let it train, images
            are masked at random, or the training loop does not run by epochs.
        FileNotFoundError: before training, features are missing; the message says how to fill the
            cache.
    """

    # Runs after the UnfreezeScheduleHook has applied its first phase.
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
        """Selects the features of the frozen parts, and checks that they are there."""
        self._training = True
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            # Its workers would start before the weights, and so the features, are known.
            raise ValueError(
                f'feature_cache does not work with {type(runner.train_loop).__name__}: set '
                "train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=...)"
            )
        loops = [runner.train_loop]
        if runner.val_loop is not None and runner.train_loop.val_begin <= runner.max_epochs:
            loops.append(runner.val_loop)
        datasets = [*cached_datasets(loop.dataloader.dataset for loop in loops)]
        for dataset in datasets:
            for folder in select_features(unwrap(runner.model), dataset, self.store, training=True):
                _check_schedules(runner, folder.partition('/')[0])
        for dataset in datasets:
            check_filled(dataset)

    def after_train(self, runner: Runner) -> None:
        """Lets later validations fill the cache."""
        self._training = False

    def before_val(self, runner: Runner) -> None:
        """Fills the cache, unless the validation is part of a training run."""
        if not self._training:
            self._fill(runner, runner.val_loop.dataloader)

    def before_test(self, runner: Runner) -> None:
        """Fills the cache."""
        self._fill(runner, runner.test_loop.dataloader)

    def _fill(self, runner: Runner, loader: DataLoader) -> None:
        model = unwrap(runner.model)
        for dataset in cached_datasets([loader.dataset]):
            select_features(model, dataset, self.store, training=False)
            fill(model, dataset, self.store, num_workers=loader.num_workers)


def _check_schedules(runner: Runner, module: str) -> None:
    """Raises a ValueError if a schedule acts on a cached module or one before it."""
    (names,) = (names for names in BRANCHES.values() if module in names)
    for hook in runner.hooks:
        if isinstance(hook, UnfreezeScheduleHook):
            scheduled = hook.module.split('.')[0]
            if scheduled in names[: names.index(module) + 1]:
                raise ValueError(
                    f'an UnfreezeScheduleHook changes whether {scheduled} trains, but the output '
                    f'of {module} is cached: remove the hook or feature_cache'
                )
