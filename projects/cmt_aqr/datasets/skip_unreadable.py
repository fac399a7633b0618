"""Training that goes on where files of a few samples are missing or damaged."""

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
    """Puts the next sample in the place of one that cannot be read, and counts.

    Without it, such a sample stops the run. It goes round all other datasets, for training alone::

        plain = _base_.train_dataloader.dataset
        train_dataloader = dict(dataset=dict(_delete_=True, type='SkipUnreadable', dataset=plain))

    Each time is a warning in the log with sample, file and the number so far. The number is that
    of a process that trains, its workers together, over all epochs.

    Args:
        dataset: config of the dataset.
        max_skipped: more than these stop the run after all: a disk that is gone is no few samples.

    Raises:
        ValueError: `max_skipped` is below 1, or the dataset is for testing, where every sample is
            scored.
        RuntimeError: when reading, for more than `max_skipped` samples.
    """

    def __init__(self, *, dataset: Mapping, max_skipped: int = 100) -> None:
        if max_skipped < 1:
            raise ValueError(f'max_skipped is {max_skipped}; it starts at 1')
        self.dataset = DATASETS.build(dataset)
        if _is_for_testing(self.dataset):
            raise ValueError('SkipUnreadable is for training: a test scores every sample')
        self.max_skipped = max_skipped
        # Workers share it, however they are started.
        self._skipped = Value('l', 0)

    @property
    def metainfo(self) -> dict:
        """That of the dataset."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read the annotations, if that was put off."""
        self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        """The sample of this index, or the next that can be read."""
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
    """Of the dataset inside of all wrappers."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return getattr(dataset, 'test_mode', False)
