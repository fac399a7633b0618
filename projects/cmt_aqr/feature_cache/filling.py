"""Filling a cache with the features that a dataset needs."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from mmdet3d.datasets.transforms import Pack3DDetInputs
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from mmengine.logging import print_log
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..datasets.failures import DrawIndex
from ..hooks.pipelines import datasets_of
from ..progress import Progress
from .frozen_features import compute_output, feature_folder
from .store import Entry, FeatureStore
from .transform import DATA_KEYS, LoadCachedFeatures

Draw = tuple[int, int]
"""Index of a sample in its dataset, and number of the draw of its failures."""


def cached_datasets(datasets: Iterable[object]) -> Iterator[Dataset]:
    """Datasets whose pipeline reads features, including those inside wrappers."""
    for outer in datasets:
        yield from (dataset for dataset in datasets_of(outer) if _cached_branches(dataset))


def select_features(
    model: nn.Module, dataset: Dataset, store: FeatureStore, *, training: bool
) -> list[str]:
    """Selects the features of a model's weights in the pipeline of a dataset, by their folders.

    Arguments and errors are those of :func:`.frozen_features.feature_folder`.
    """
    transforms = _cached_branches(dataset)
    for transform in transforms:
        transform.folder = feature_folder(
            model, transform.branch, dtype=store.dtype, training=training
        )
    return [transform.folder for transform in transforms]


def check_filled(dataset: Dataset) -> None:
    """Reads the first and the last features of a dataset.

    :func:`fill` writes entries in this order, so the last ones are missing if it was interrupted.
    Several are read, since draws without a failure share an entry with earlier ones.

    Raises:
        FileNotFoundError: they are not in the cache; the message says how to fill it.
        ValueError: they are damaged.
    """
    draws = _draws(dataset)
    for draw in (*draws[:1], *draws[-20:]):
        for transform in _cached_branches(dataset):
            transform(_drawn_sample(dataset, draw))


def fill(model: nn.Module, dataset: Dataset, store: FeatureStore, *, num_workers: int = 0) -> None:
    """Computes and writes the missing features of a dataset, under all draws of its failures.

    It comes after :func:`select_features`. Several processes share the work, each with
    ``num_workers`` that load samples. The log says how many features are missing.

    Raises:
        ValueError: the entries would exceed the limit of the store.
    """
    was_training = model.training
    jobs, size = _missing(dataset), 0
    for transform, todo in jobs.items():
        model.train(transform.training)
        for key, entry in _computed(model, dataset, transform, todo[:1]):
            # All entries are as large as the first.
            size += len(todo) * store.write(transform.folder, key, entry)
    counts = ' and '.join(f'{len(todo)} {transform.branch}' for transform, todo in jobs.items())
    print_log(
        f'feature cache {store.directory}: {counts} features to compute for {len(dataset)} '
        f'samples, {size / 1e9:.3f} GB',
        logger='current',
    )
    store.check_room(size * get_world_size())
    for transform, todo in jobs.items():
        model.train(transform.training)
        title = f'{transform.branch} features'
        progress = Progress(title, len(todo)) if is_main_process() else None
        for key, entry in _computed(model, dataset, transform, todo, num_workers):
            store.write(transform.folder, key, entry)
            if progress is not None:
                progress.move()
        if progress is not None:
            progress.close()
    model.train(was_training)
    barrier()


def _cached_branches(dataset: object) -> list[LoadCachedFeatures]:
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    return [step for step in steps if isinstance(step, LoadCachedFeatures)]


def _draws(dataset: Dataset) -> list[Draw]:
    """All draws of all samples; each sample has one unless a `DrawIndex` gives it more."""
    steps = dataset.pipeline.transforms
    numbers = max((s.variants for s in steps if isinstance(s, DrawIndex)), default=1)
    return [(index, number) for number in range(numbers) for index in range(len(dataset))]


def _drawn_sample(dataset: Dataset, draw: Draw) -> dict:
    """A sample with its failures as it reaches the first `LoadCachedFeatures`."""
    index, number = draw
    results = dataset.get_data_info(index)
    for step in dataset.pipeline.transforms:
        if isinstance(step, LoadCachedFeatures):
            break
        results = {**results, 'draw': number} if isinstance(step, DrawIndex) else step(results)
    return results


def _missing(dataset: Dataset) -> dict[LoadCachedFeatures, list[tuple[str, Draw]]]:
    """Keys that this process has to compute for each branch, each with a draw that has it."""
    draws = {transform: {} for transform in _cached_branches(dataset)}
    for draw in _draws(dataset):
        results = _drawn_sample(dataset, draw)
        for transform, found in draws.items():
            found.setdefault(transform.key(results), draw)
    missing = {}
    for transform, found in draws.items():
        # Processes divide all keys, since others may already be writing some of the missing ones.
        mine = itertools.islice(found.items(), get_rank(), None, get_world_size())
        path = functools.partial(transform.store.path, transform.folder)
        missing[transform] = [(key, draw) for key, draw in mine if not path(key).is_file()]
    return missing


class _Inputs(Dataset):
    """Inputs of a branch for the draws that are missing in the cache."""

    def __init__(
        self, dataset: Dataset, transform: LoadCachedFeatures, jobs: Sequence[tuple[str, Draw]]
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.jobs = jobs
        self.data_key = DATA_KEYS[transform.branch]
        self.pack = Pack3DDetInputs(keys=(self.data_key,), meta_keys=())

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> tuple[str, dict, dict[str, Any]]:
        key, draw = self.jobs[index]
        data, facts = self.transform.load(_drawn_sample(self.dataset, draw))
        return key, self.pack({self.data_key: data})['inputs'], facts


def _computed(
    model: nn.Module,
    dataset: Dataset,
    transform: LoadCachedFeatures,
    jobs: Sequence[tuple[str, Draw]],
    num_workers: int = 0,
) -> Iterator[tuple[str, Entry]]:
    """Keys and entries, computed one sample at a time so that none depends on others."""
    module = transform.folder.partition('/')[0]
    device = model.data_preprocessor.device
    inputs = _Inputs(dataset, transform, jobs)
    loader = DataLoader(inputs, batch_size=None, num_workers=num_workers, collate_fn=_unchanged)
    for key, inputs, facts in loader:
        batch = {name: [tensor] for name, tensor in inputs.items()}
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            batch = model.data_preprocessor({'inputs': batch}, model.training)['inputs']
            maps = compute_output(model, module, batch)
        if 'imgs' in batch:
            facts['pad_shape'] = facts['batch_input_shape'] = tuple(batch['imgs'].shape[-2:])
        yield key, Entry([m[0] for m in maps], facts)


def _unchanged(item: Any) -> Any:
    """Collation that does not turn arrays into tensors."""
    return item
