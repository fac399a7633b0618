"""A training step that reads the features of what is frozen."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from mmengine.logging import MMLogger

from ..feature_cache import FeatureStore, Lookup, usage
from ..feature_cache.lookup import META_KEY
from .training_step import TrainingStep

_KEY = '0' * 64  # of the one sample


class CachedTrainingStep(TrainingStep):
    """As :class:`.training_step.TrainingStep`, of a sample whose features are in a feature cache.

    That they are read from their file, which lies in the page cache, is part of the step; that a
    worker has verified them, as others load samples, is not.

    Args:
        settings: of :class:`.training_step.TrainingStep`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._directory = tempfile.TemporaryDirectory(prefix='features_')
        # Computed elsewhere, so that the memory for it is none of this process.
        spawn = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
            pool.submit(_fill, settings, self._directory.name).result()
        _use_cache(self, self._directory.name, hit=True)


def _fill(settings: dict[str, Any], directory: str) -> None:
    MMLogger.get_current_instance().setLevel('WARNING')
    step = TrainingStep(**settings)
    _use_cache(step, directory, hit=False)
    with torch.no_grad():
        step.model.extract_feat(step.model.data_preprocessor(step.batch, True)['inputs'])


def _use_cache(step: TrainingStep, directory: str, *, hit: bool) -> None:
    """Let the model have a cache, and the sample have been found there or not."""
    parts = usage.begin(step.model, FeatureStore(directory=directory), []).parts
    lookups = {b: Lookup(_KEY, part.folder if hit else None) for b, part in parts.items()}
    for sample, images in zip(step.batch['data_samples'], step.batch['inputs']['img'], strict=True):
        sample.set_metainfo({META_KEY: lookups, 'pad_shape': tuple(images.shape[-2:])})
