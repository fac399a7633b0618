"""Digests of everything that determines the features of a sample."""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..datasets.failures.base import DrawnFailure
from ..datasets.failures.lidar import DrawnLidarDrop

# Settings of modules that do not change the values of features.
_WITHOUT_EFFECT = {'training', 'frozen_stages', 'norm_eval', 'with_cp', 'non_blocking'}
# Keys of a sample that identify the data of a sensor before it is loaded.
_RECORD_KEYS = {
    'lidar': ('token', 'lidar_points', 'lidar_sweeps', 'timestamp', 'ego2global'),
    'camera': ('token', 'images'),
}
_DAMAGE = {'lidar': ('alter', 'damage_points'), 'camera': ('alter', 'damage_image')}


def fingerprint_modules(modules: Mapping[str, nn.Module]) -> str:
    """Hexadecimal digest of the structure, weights and buffers of modules.

    The structure is the name, class and plain attributes (strides, ranges, output stages) of every
    submodule. Freezing and the training mode have no influence.
    """
    digest = hashlib.sha256()
    for prefix, module in modules.items():
        for name, part in module.named_modules(prefix=prefix):
            digest.update(repr((name, type(part).__qualname__, _settings(part))).encode())
        tensors = (module.named_parameters(prefix=prefix), module.named_buffers(prefix=prefix))
        for name, tensor in chain(*tensors):
            digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(content.numpy())
    return digest.hexdigest()


def fingerprint(*parts: object) -> str:
    """Hexadecimal digest of the text of plain values."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def sample_key(branch: str, results: Mapping[str, Any], loading: str) -> str:
    """Hexadecimal digest of what determines the input of a branch, before it is loaded.

    That is the record of the sample, the sizes of its files and the failures of the branch's
    sensor. All empty clouds have the same key. ``loading`` is the digest of the transforms that
    load and prepare the input.
    """
    # Those whose class overrides a method that changes the branch's input.
    drawn = [
        failure
        for failure in results.get('failures', ())
        if any(
            getattr(type(failure), method) is not getattr(DrawnFailure, method)
            for method in _DAMAGE[branch]
        )
    ]
    failures = [failure.key for failure in drawn]
    match drawn:
        case [DrawnLidarDrop(mode='empty')]:
            return fingerprint(branch, loading, failures)
    record = [results.get(key) for key in _RECORD_KEYS[branch]]
    sizes = [_file_size(file) for file in _files(branch, results)]
    return fingerprint(branch, loading, failures, record, sizes)


def _files(branch: str, results: Mapping[str, Any]) -> Iterator[str | None]:
    """Files from which the input of a branch is loaded."""
    if branch == 'camera':
        for camera in results.get('images', {}).values():
            yield camera.get('img_path')
        return
    for cloud in (results, *results.get('lidar_sweeps', ())):
        yield cloud.get('lidar_points', {}).get('lidar_path')


def _file_size(file: str | None) -> int | None:
    """Bytes of a local file; None if it does not exist."""
    try:
        return Path(file).stat().st_size if file else None
    except OSError:
        return None


def _settings(module: nn.Module) -> list[tuple[str, Any]]:
    return sorted(
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith('_') and name not in _WITHOUT_EFFECT and _is_plain(value)
    )


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
