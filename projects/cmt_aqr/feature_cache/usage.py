"""Putting a cache to use in a model and its pipelines, and taking it away again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mmengine.logging import print_log
from torch import nn

from .cache import FeatureCache
from .fixed_parts import find_fixed_parts, module_names
from .store import FeatureStore
from .transform import CachedFeatures


def begin(model: nn.Module, store: FeatureStore, datasets: Iterable[object]) -> FeatureCache:
    """Let a detector and the pipelines of datasets use the features of what is frozen.

    Args:
        model: with its weights, in the mode in which it will run.
        store: of the features.
        datasets: some may be without a :class:`CachedFeatures` in their pipeline.

    Raises:
        ValueError: see :func:`.fixed_parts.find_fixed_parts`.
    """
    parts = find_fixed_parts(model, dtype=store.dtype)
    model.feature_cache = FeatureCache(store, parts)
    for branch, part in parts.items():
        print_log(
            f'feature cache: {branch} up to {module_names(branch, part)[-1]} in '
            f'{store.directory / part.folder}, {store.count(part.folder)} entries of '
            f'{store.size(part.folder) / 1e9:.3f} GB',
            logger='current',
        )
    for transform in _transforms(datasets):
        part = parts.get(transform.branch)
        transform.use(part and part.folder)
    return model.feature_cache


def end(model: nn.Module, datasets: Iterable[object]) -> None:
    """Let them compute and load everything again."""
    model.feature_cache = None
    for transform in _transforms(datasets):
        transform.use(None)


def pipeline_steps(dataset: object) -> Iterator[object]:
    """The steps in the pipeline of a dataset, and of the datasets that it wraps."""
    yield from getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    for inner in [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())]:
        if inner is not None:
            yield from pipeline_steps(inner)


def _transforms(datasets: Iterable[object]) -> Iterator[CachedFeatures]:
    for dataset in datasets:
        yield from (s for s in pipeline_steps(dataset) if isinstance(s, CachedFeatures))
