"""The part of a pipeline that loads the input of one branch, or finds its features in the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARPoints

from .fingerprint import fingerprint, is_same_for_all, sample_key
from .lookup import META_KEY, Lookup
from .store import FeatureStore

DATA_KEYS = {'lidar': 'points', 'camera': 'img'}
_SIZES = 'file_sizes'
_FOLDER_LENGTH = 64


@TRANSFORMS.register_module()
class CachedFeatures(BaseTransform):
    """Runs transforms that load the input of a branch, unless its features are in the cache.

    On a hit nothing is loaded: the sample gets an empty input and what else the transforms would
    have added to it, such as ``lidar2img``. An entry is only a hit if its features are those of the
    model at hand (see :meth:`use`), of these transforms, this record of the info file and these
    failures, and if it is whole. Files of the sample that are still there must have the size that
    they had; if they are gone, that is no fault.

    The first steps of a run may find nothing although entries are there: workers can be ahead of
    the model's weights.

    Args:
        branch: 'lidar' or 'camera'.
        transforms: configs of what loads and prepares ``points`` or ``img``, free of chance.
        directory: of the :class:`.store.FeatureStore`.
        training: whether the model will be in training mode: voxels may have another limit then.

    Raises:
        ValueError: for another branch.
    """

    def __init__(
        self,
        *,
        branch: str,
        transforms: Sequence[dict],
        directory: str | os.PathLike,
        training: bool = False,
    ) -> None:
        if branch not in DATA_KEYS:
            raise ValueError(f'branch={branch!r} is none of {list(DATA_KEYS)}')
        self.branch = branch
        self.transforms = [TRANSFORMS.build(step) for step in transforms]
        self.store = FeatureStore(directory=directory)
        self._loading = fingerprint(training, *map(_plain, transforms))
        # In shared memory, for workers may have started before the model has its weights.
        self._folder = torch.zeros(_FOLDER_LENGTH, dtype=torch.uint8).share_memory_()

    def use(self, folder: str | None) -> None:
        """From now on, in all workers, take features from this folder of the store, or none."""
        text = (folder or '').encode().ljust(_FOLDER_LENGTH, b'\0')
        self._folder.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))

    def key(self, results: dict) -> str:
        """Of the entry of a sample, once its failures are drawn."""
        return sample_key(self.branch, results, self._loading)

    def transform(self, results: dict) -> dict | None:
        """Adds ``points`` or ``img``, and a :class:`.lookup.Lookup` to ``cached_features``."""
        folder = bytes(self._folder.numpy()).rstrip(b'\0').decode()
        key = self.key(results)
        facts = self._find(folder, key) if folder else None
        if facts is not None:
            results.update(facts)
            results[DATA_KEYS[self.branch]] = _nothing(self.branch)
            lookup = Lookup(key, folder)
        else:
            results, facts = self._load(results)
            lookup = Lookup(key, facts=facts)
        if results is not None:
            results[META_KEY] = {**results.get(META_KEY, {}), self.branch: lookup}
        return results

    def _find(self, folder: str, key: str) -> dict[str, Any] | None:
        entry = self.store.read(folder, key)
        if entry is None:
            return None
        sizes = entry.facts.pop(_SIZES)
        return entry.facts if all(_file_size(f) in (None, n) for f, n in sizes.items()) else None

    def _load(self, results: dict) -> tuple[dict | None, dict[str, Any]]:
        """The sample with its input, and what came with that."""
        before = dict(results)
        files = () if is_same_for_all(self.branch, results) else _files(self.branch, results)
        sizes = {file: _file_size(file) for file in files}
        for step in self.transforms:
            results = step(results)
            if results is None:
                return None, {}
        added = {
            name: value
            for name, value in results.items()
            if name != DATA_KEYS[self.branch] and before.get(name, _ABSENT) is not value
        }
        return results, {**added, _SIZES: sizes}

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(branch={self.branch!r}, transforms={self.transforms}, '
            f'directory={str(self.store.directory)!r})'
        )


_ABSENT = object()


def _nothing(branch: str) -> Any:
    """An input that packing and collating take, for a sample whose features are there."""
    if branch == 'lidar':
        return LiDARPoints(torch.empty(0, 5), points_dim=5)
    return [np.zeros((0, 0, 3), dtype=np.uint8)]


def _files(branch: str, results: dict) -> Iterator[str]:
    """Names of the files that a sample of the info file lists for a branch."""
    if branch == 'camera':
        for camera in results.get('images', {}).values():
            yield camera.get('img_path')
        return
    for cloud in (results, *results.get('lidar_sweeps', ())):
        yield cloud.get('lidar_points', {}).get('lidar_path')


def _file_size(file: str | None) -> int | None:
    """Bytes of a local file; None of what is none, or not there."""
    try:
        return Path(file).stat().st_size if file else None
    except OSError:
        return None


def _plain(config: Any) -> Any:
    """A config as plain containers, keys in order, so that equal ones print alike."""
    if isinstance(config, dict):
        return {key: _plain(config[key]) for key in sorted(config)}
    if isinstance(config, list | tuple):
        return [_plain(item) for item in config]
    return getattr(config, '__qualname__', config)
