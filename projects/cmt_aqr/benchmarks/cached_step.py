"""A training step that reads the features of frozen parts."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from mmengine.logging import MMLogger

from ..feature_cache import FeatureStore
from ..feature_cache.frozen_features import BRANCHES, compute_output, feature_folder
from ..feature_cache.store import Entry
from .training_step import TrainingStep

_KEY = '0' * 64  # of the only sample


class CachedTrainingStep(TrainingStep):
    """Training step on a sample whose features are in a feature cache.

    Reading and verifying their file, which is in the page cache, counts as input.

    Args:
        settings: of :class:`.training_step.TrainingStep`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._directory = tempfile.TemporaryDirectory(prefix='features_')
        self._store = FeatureStore(directory=self._directory.name)
        # Another process computes them, so that its memory does not count as this one's.
        spawn = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
            self._folders, shape = pool.submit(_fill, settings, self._store).result()
        for sample in self.batch['data_samples']:
            sample.set_metainfo(dict(pad_shape=shape, batch_input_shape=shape))

    def differentiate(self) -> None:
        """Run forward and backward from the features on disk."""
        with self._watch.lap('input'):
            features = {}
            for folder in self._folders:
                maps = self._store.read(folder, _KEY).maps
                features[folder.partition('/')[0]] = [[m] for m in maps]
            self.batch['inputs'] = {'features': features}
        super().differentiate()


def _fill(settings: dict[str, Any], store: FeatureStore) -> tuple[list[str], tuple[int, int]]:
    """Writes the features of the sample; returns their folders and the size of the images."""
    MMLogger.get_current_instance().setLevel('WARNING')
    step = TrainingStep(**settings)
    folders = [feature_folder(step.model, b, dtype=store.dtype, training=True) for b in BRANCHES]
    with torch.no_grad():
        inputs = step.model.data_preprocessor(step.batch, True)['inputs']
        for folder in folders:
            maps = compute_output(step.model, folder.partition('/')[0], inputs)
            store.write(folder, _KEY, Entry([m[0] for m in maps], {}))
    return folders, tuple(inputs['imgs'].shape[-2:])
