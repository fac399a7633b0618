"""Search for transforms in the pipelines of a dataset, and the epochs that their hooks need."""

from collections.abc import Iterator
from typing import TypeVar

from mmengine.dataset import Compose
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import Dataset

T = TypeVar('T')


def datasets_of(dataset: Dataset) -> Iterator[Dataset]:
    """Yields a dataset and those that it wraps."""
    yield dataset
    for inner in (getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())):
        if inner is not None:
            yield from datasets_of(inner)


def pipelines_of(dataset: Dataset) -> Iterator[Compose]:
    """Yields the pipeline of a dataset, or those of the datasets that it wraps."""
    pipelines = (getattr(inner, 'pipeline', None) for inner in datasets_of(dataset))
    yield from (pipeline for pipeline in pipelines if hasattr(pipeline, 'transforms'))


def transforms_of(dataset: Dataset, kind: type[T]) -> Iterator[T]:
    """Yields the transforms of a class in the pipelines of a dataset."""
    for pipeline in pipelines_of(dataset):
        yield from (step for step in pipeline.transforms if isinstance(step, kind))


def check_epochs(runner: Runner, purpose: str, remedy: str) -> None:
    """Raise a ValueError if the training loop does not count epochs, which are needed."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        raise ValueError(
            f'{purpose} by the epoch, which {type(loop).__name__} does not count; {remedy}, or '
            "train with train_cfg=dict(type='EpochBasedTrainLoop')"
        )
