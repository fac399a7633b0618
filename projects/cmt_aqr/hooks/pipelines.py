"""Finding the transforms that a hook has something to tell."""

from collections.abc import Iterator
from typing import TypeVar

from torch.utils.data import Dataset

T = TypeVar('T')


def transforms_of(dataset: Dataset, kind: type[T]) -> Iterator[T]:
    """Those of a class in the pipeline of a dataset, or of the datasets that it wraps."""
    for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if isinstance(transform, kind):
            yield transform
    wrapped = [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())]
    for inner in wrapped:
        if inner is not None:
            yield from transforms_of(inner, kind)
