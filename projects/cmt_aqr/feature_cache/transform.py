"""Transforms of a pipeline that reads cached features in place of points or images."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from .fingerprint import fingerprint, sample_key
from .store import FeatureStore

DATA_KEYS = {'lidar': 'points', 'camera': 'img'}
_FOLDER_LENGTH = 64
_ABSENT = object()


@TRANSFORMS.register_module()
class LoadCachedFeatures(BaseTransform):
    """Reads the features of a sample and branch in place of points or images.

    It also adds what loading would have added to the sample, such as ``lidar2img``. The
    :class:`.hook.FeatureCacheHook` selects the features of the model's weights.

    Args:
        branch: 'lidar' or 'camera'.
        transforms: configs of the transforms that load and prepare the input of the branch, without
            random augmentation; used to fill the cache.
        directory: of the :class:`.store.FeatureStore`.
        training: whether the features are for a model in training mode, where the limit on the
            number of voxels may differ.
        fill_command: the command that fills the cache, for the error on a missing entry.

    Raises:
        ValueError: for another branch, or, while loading, a damaged entry.
        FileNotFoundError: while loading, the sample is not in the cache.
    """

    def __init__(
        self,
        *,
        branch: str,
        transforms: Sequence[dict],
        directory: str | os.PathLike,
        training: bool = False,
        fill_command: str = 'python tools/cache_features.py',
    ) -> None:
        if branch not in DATA_KEYS:
            raise ValueError(f'branch={branch!r} is not one of {list(DATA_KEYS)}')
        self.branch = branch
        self.transforms = [TRANSFORMS.build(step) for step in transforms]
        self.store = FeatureStore(directory=directory)
        self.training = training
        self.fill_command = fill_command
        self._loading = fingerprint(training, *map(_plain, transforms))
        self._folder = torch.zeros(_FOLDER_LENGTH, dtype=torch.uint8)

    @property
    def folder(self) -> str:
        """Folder of the store from which all workers read; empty before it is set."""
        return bytes(self._folder.numpy()).rstrip(b'\0').decode()

    @folder.setter
    def folder(self, folder: str) -> None:
        text = bytearray(folder.encode().ljust(_FOLDER_LENGTH, b'\0'))
        # Shared here, before the first workers start: a copy of the dataset would lose it.
        self._folder.share_memory_().copy_(torch.frombuffer(text, dtype=torch.uint8))

    def key(self, results: Mapping) -> str:
        """Key of the entry of a sample with its drawn failures."""
        return sample_key(self.branch, results, self._loading)

    def transform(self, results: dict) -> dict:
        """Adds the maps to ``features``, by the name of the module that computed them."""
        folder = self.folder
        if not folder:
            raise RuntimeError(
                'LoadCachedFeatures does not know the weights of the model: set feature_cache in '
                'the config, which adds the FeatureCacheHook, in place of this transform'
            )
        try:
            entry = self.store.read(folder, self.key(results))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{self.store.directory} has no {self.branch} features of these weights for '
                f'sample {results.get("token")}; to fill it: {self.fill_command}'
            ) from error
        results.update(entry.facts)
        module = folder.partition('/')[0]
        results['features'] = {**results.get('features', {}), module: entry.maps}
        return results

    def load(self, results: dict) -> tuple[Any, dict[str, Any]]:
        """Returns the branch's input and the other keys that loading adds."""
        data_key, before = DATA_KEYS[self.branch], dict(results)
        for step in self.transforms:
            results = step(results)
        facts = {
            name: value
            for name, value in results.items()
            if name != data_key and before.get(name, _ABSENT) is not value
        }
        return results[data_key], facts


@TRANSFORMS.register_module()
class PackWithFeatures(BaseTransform):
    """Packs a sample and adds its cached ``features`` to the inputs.

    Args:
        packing: config of the transform that packs everything else, such as ``Pack3DDetInputs``.
    """

    def __init__(self, *, packing: Mapping) -> None:
        self.packing = TRANSFORMS.build(packing)

    def transform(self, results: dict) -> dict:
        """The packed sample, with ``features`` in its ``inputs``."""
        features = results['features']
        packed = self.packing(results)
        packed['inputs']['features'] = features
        return packed


def _plain(config: Any) -> Any:
    """Config as plain containers with sorted keys, so that equal configs have equal text."""
    if isinstance(config, Mapping):
        return {key: _plain(config[key]) for key in sorted(config)}
    if isinstance(config, list | tuple):
        return [_plain(item) for item in config]
    return getattr(config, '__qualname__', config)
