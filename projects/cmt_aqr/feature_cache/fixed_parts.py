"""Which stages of a detector's branches always give the same features, and under which name."""

from __future__ import annotations

import logging

import torch
from mmengine.logging import print_log
from torch import nn

from ..freezing import fast_path_of
from .cache import FixedPart
from .fingerprint import fingerprint, fingerprint_modules

STAGES = {
    'lidar': (('pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone'), ('pts_neck',)),
    'camera': (('img_backbone',), ('img_neck',)),
}
"""Modules of each stage of each branch; the detector runs the stages one after another."""

# A new number makes all entries stale: for changes of the code that change features.
_VERSION = 1


def find_fixed_parts(model: nn.Module, *, dtype: torch.dtype) -> dict[str, FixedPart]:
    """The longest frozen part of each branch, from the input on, and where its features lie.

    A part that is frozen has no parameter that takes a gradient. In a model in training mode it is
    also in evaluation mode as a whole. In evaluation mode nothing changes; there the backbone's
    features count as fixed in any case.

    Args:
        model: a detector with its weights, in the mode in which it will run.
        dtype: of the features on disk.

    Raises:
        ValueError: images are masked at random before a frozen backbone gets them.
    """
    parts = {}
    for branch, stages in STAGES.items():
        if not all(hasattr(model, name) for stage in stages for name in stage):
            continue
        number = _count_fixed(model, stages)
        if not number:
            moving = _first_moving(model, stages[0])
            message = f'feature cache: {branch} is not cached, for {moving} is not frozen'
            print_log(message, logger='current', level=logging.WARNING)
            continue
        if branch == 'camera':
            _check_no_grid_mask(model)
        parts[branch] = FixedPart(number, _folder(branch, model, stages[:number], dtype))
    return parts


def module_names(branch: str, part: FixedPart) -> list[str]:
    """The modules whose outputs, or what comes of them, are cached."""
    return [name for stage in STAGES[branch][: part.stages] for name in stage]


def moving_module(model: nn.Module, branch: str, part: FixedPart) -> str | None:
    """The first module of a part that is no longer frozen."""
    return _first_moving(model, module_names(branch, part))


def _count_fixed(model: nn.Module, stages: tuple[tuple[str, ...], ...]) -> int:
    number = 0
    while number < len(stages) and _first_moving(model, stages[number]) is None:
        number += 1
    return number or int(not model.training)


def _first_moving(model: nn.Module, names: tuple[str, ...] | list[str]) -> str | None:
    for name in names:
        for inner, module in model.get_submodule(name).named_modules(prefix=name):
            trained = any(p.requires_grad for p in module.parameters(recurse=False))
            if trained or (model.training and module.training):
                return inner
    return None


def _check_no_grid_mask(model: nn.Module) -> None:
    if model.training and model.grid_mask is not None:
        raise ValueError(
            'grid_mask changes images at random before the frozen img_backbone gets them, so its '
            'features cannot be cached: set model=dict(grid_mask=None), or leave feature_cache out'
        )


def _folder(
    branch: str, model: nn.Module, stages: tuple[tuple[str, ...], ...], dtype: torch.dtype
) -> str:
    """Name of the store's folder, by what decides features beside the sample."""
    modules = {name: model.get_submodule(name) for stage in stages for name in stage}
    weights = fingerprint_modules(modules)
    inputs = fingerprint_modules({'data_preprocessor': model.data_preprocessor})
    # A fast path in the model's own precision gives the same features.
    precisions = [getattr(fast_path_of(module), 'dtype', None) for module in modules.values()]
    lower = [str(precision) for precision in precisions if precision is not None]
    digest = fingerprint(_VERSION, branch, len(stages), str(dtype), weights, inputs, lower)
    return f'{branch}-{digest[:32]}'
