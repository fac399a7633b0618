"""Training that continues when files of a few samples are missing or damaged."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from multiprocessing import Value

from mmdet3d.registry import DATASETS
from mmengine.logging import print_log
from torch.utils.data import Dataset

from .reading import SampleError


@DATASETS.register_module()
class SkipUnreadable(Dataset):
    """Dataset wrapper that replaces a sample that cannot be read by the next one.

    Without it, such a sample stops the run. It wraps all other datasets, in training only::

        plain = _base_.train_dataloader.dataset
        train_dataloader = dict(dataset=dict(_delete_=True, type='SkipUnreadable', dataset=plain))

    Each replacement is logged as a warning with the sample, the file and the number of replacements
    so far, which counts all epochs and all workers of one training process.

    Args:
        dataset: config of the dataset.
        max_skipped: number of replacements after which the run stops: the disk may be gone.

    Raises:
        ValueError: `max_skipped` is below 1, or the dataset is for testing, where every sample is
            scored.
        RuntimeError: more than `max_skipped` samples could not be read.
    """

    def __init__(self, *, dataset: Mapping, max_skipped: int = 100) -> None:
        if max_skipped < 1:
            raise ValueError(f'max_skipped is {max_skipped}; it must be at least 1')
        self.dataset = DATASETS.build(dataset)
        if _is_for_testing(self.dataset):
            raise ValueError('SkipUnreadable is for training only: a test scores every sample')
        self.max_skipped = max_skipped
        # Shared by the workers, however they are started.
        self._skipped = Value('l', 0)

    @property
    def metainfo(self) -> dict:
        """Metainfo of the dataset."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Reads the annotations, if the dataset was built lazily."""
        self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        """Returns the sample of this index, or the next one that can be read."""
        for candidate in itertools.count(index):
            try:
                return self.dataset[candidate % len(self)]
            except SampleError as error:
                self._count(error)

    def _count(self, error: SampleError) -> None:
        with self._skipped.get_lock():
            self._skipped.value += 1
            skipped = self._skipped.value
        if skipped > self.max_skipped:
            raise RuntimeError(
                f'{skipped} times a sample could not be read, more than '
                f'max_skipped={self.max_skipped}; the last: {error}'
            ) from error
        print_log(
            f'left out, {skipped} of at most {self.max_skipped}: {error}',
            logger='current',
            level=logging.WARNING,
        )


def _is_for_testing(dataset: Dataset) -> bool:
    """Whether the dataset inside all wrappers is in test mode."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return getattr(dataset, 'test_mode', False)
