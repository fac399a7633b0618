"""Digests of all that decides the features of a sample: a change of any makes another key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..datasets.failures.base import DrawnFailure
from ..datasets.failures.lidar import DrawnLidarDrop

# Settings of modules that change how features are computed or learnt, but not their values.
_WITHOUT_EFFECT = {'training', 'frozen_stages', 'norm_eval', 'with_cp', 'non_blocking'}
# What of a sample, before anything is loaded, says what its sensors saw.
_RECORD_KEYS = {
    'lidar': ('token', 'lidar_points', 'lidar_sweeps', 'timestamp', 'ego2global'),
    'camera': ('token', 'images'),
}
_DAMAGE = {'lidar': ('alter', 'damage_points'), 'camera': ('alter', 'damage_image')}


def fingerprint_modules(modules: Mapping[str, nn.Module]) -> str:
    """Digest of the structure, weights and buffers of modules, in hexadecimal digits.

    The structure is every submodule's name, class and plain attributes: strides, ranges, the
    stages that are returned. Whether parts are frozen or training does not count.
    """
    digest = hashlib.sha256()
    for prefix, module in modules.items():
        for name, part in module.named_modules(prefix=prefix):
            digest.update(repr((name, type(part).__qualname__, _settings(part))).encode())
        for name, tensor in _tensors(module, prefix):
            digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(content.numpy())
    return digest.hexdigest()


def fingerprint(*parts: object) -> str:
    """Digest of plain values as they print, in hexadecimal digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def sample_key(branch: str, results: Mapping[str, Any], loading: str) -> str:
    """Digest of what decides the input of a branch for one sample, before it is loaded.

    Args:
        branch: 'lidar' or 'camera'.
        results: the sample, with the failures that were drawn for it. Those that leave this
            branch's sensor alone do not count.
        loading: digest of the transforms that load and prepare the input.
    """
    failures = [failure.key for failure in _failures_of(branch, results)]
    if is_same_for_all(branch, results):
        return fingerprint(branch, loading, failures)
    record = [results.get(key) for key in _RECORD_KEYS[branch]]
    return fingerprint(branch, loading, failures, record)


def is_same_for_all(branch: str, results: Mapping[str, Any]) -> bool:
    """Whether nothing of the sample is left in a branch's input: a cloud without any points."""
    match _failures_of(branch, results):
        case [DrawnLidarDrop(mode='empty')]:
            return True
    return False


def _failures_of(branch: str, results: Mapping[str, Any]) -> list[DrawnFailure]:
    """Those that act on the branch: their classes say how."""
    return [
        failure
        for failure in results.get('failures', ())
        if any(
            getattr(type(failure), name) is not getattr(DrawnFailure, name)
            for name in _DAMAGE[branch]
        )
    ]


def _tensors(module: nn.Module, prefix: str) -> Iterable[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(prefix=prefix)
    yield from module.named_buffers(prefix=prefix)


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
