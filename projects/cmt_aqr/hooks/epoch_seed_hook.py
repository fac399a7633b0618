"""Hook that seeds every epoch, so that a resumed run draws the same random numbers.

mmengine seeds a run once, and its checkpoints contain no random states. Dropout and augmentation
would otherwise draw different numbers after a resumption.
"""

import random

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import get_worker_info

from .pipelines import check_epochs, pipelines_of

# Consumers of random numbers; above zero, which numpy's SeedSequence treats like no number.
_LOADING, _TRAINING, _FIRST_WORKER = 1, 2, 3


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds the process and its workers before each training epoch.

    The seeds are derived from the run's seed, the epoch, the rank and the worker. Processes draw
    different numbers, so ``diff_rank_seed`` is not needed, and a run resumed with the same number
    of processes and workers equals an uninterrupted one bit for bit. A transform is prepended to
    the pipeline of each dataset, which seeds a worker at its first sample of an epoch.

    Raises:
        ValueError: before training, the run does not count epochs.
    """

    def __init__(self) -> None:
        self._epoch = torch.full((1,), -1, dtype=torch.int64)

    def before_train(self, runner: Runner) -> None:
        """Prepend the transform, before any worker starts."""
        check_epochs(runner, 'EpochSeedHook seeds', 'leave it out')
        self._epoch.share_memory_()
        seeding = _SeedWorker(seed=runner.seed, rank=get_rank(), epoch=self._epoch)
        for pipeline in pipelines_of(runner.train_dataloader.dataset):
            pipeline.transforms.insert(0, seeding)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process, which may load samples itself, and tell its workers the epoch."""
        self._epoch.fill_(runner.epoch)
        _seed_all(runner.seed, runner.epoch, get_rank(), _LOADING)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seed this process again, so that starting workers makes no difference."""
        if batch_idx == 0:
            _seed_all(runner.seed, runner.epoch, get_rank(), _TRAINING)


class _SeedWorker(BaseTransform):
    """Seeds a worker at the start of an epoch and leaves samples unchanged."""

    def __init__(self, *, seed: int, rank: int, epoch: torch.Tensor) -> None:
        self._seed = seed
        self._rank = rank
        self._epoch = epoch
        self._seeded_for = -1

    def transform(self, results: dict) -> dict:
        worker, epoch = get_worker_info(), int(self._epoch)
        if worker is not None and self._seeded_for != epoch:
            _seed_all(self._seed, epoch, self._rank, _FIRST_WORKER + worker.id)
            self._seeded_for = epoch
        return results


def _seed_all(*numbers: int) -> None:
    """Seed Python, numpy and torch from all of the numbers."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1)
    random.seed(int(state))
    np.random.seed(state)
    torch.manual_seed(int(state))
