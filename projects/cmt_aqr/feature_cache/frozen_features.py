"""The frozen output of a detector's branch, and the folder of its features."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..freezing import fast_path_of
from .fingerprint import fingerprint, fingerprint_modules

BRANCHES = {
    'lidar': ('pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck'),
    'camera': ('img_backbone', 'img_neck'),
}
"""Modules of each branch in the order in which they run; the output of the last two is cached."""

# Incremented when a change of the code changes features: no earlier entry is found again.
_VERSION = 2


def feature_folder(model: nn.Module, branch: str, *, dtype: torch.dtype, training: bool) -> str:
    """Folder ``MODULE/DIGEST`` of the features of a branch.

    They are the output of MODULE, the last one that is frozen together with all before it. DIGEST
    covers everything that determines the features of a given sample.

    A module is frozen if none of its parameters requires a gradient and it stays in evaluation mode
    when the model trains. Without training the backbone always counts as frozen, so that models
    which were trained on the same backbone share its features.

    Args:
        model: a detector with its weights.
        branch: 'lidar' or 'camera'.
        dtype: of the features on disk.
        training: whether the model is going to be trained on the features.

    Raises:
        ValueError: the model does not have the branch, trains its backbone, or masks images at
            random before the backbone.
    """
    *first, neck = BRANCHES[branch]
    only = [name for name in BRANCHES if name != branch]
    if not hasattr(model, neck):
        raise ValueError(f'the model has no {branch} branch: set feature_cache.branches={only}')
    moving = _first_trained(model, first)
    if training and moving:
        raise ValueError(
            f'{moving} is not frozen, so its features cannot be cached: freeze all of '
            f'{", ".join(first)}, or set feature_cache.branches={only}'
        )
    if training and branch == 'camera' and model.grid_mask is not None:
        raise ValueError(
            'grid_mask changes images at random before the frozen img_backbone, so its features '
            'cannot be cached: set model.grid_mask=None'
        )
    names = first if moving or _first_trained(model, [neck]) else [*first, neck]
    return f'{names[-1]}/{_digest(model, branch, names, dtype)}'


def compute_output(model: nn.Module, module: str, inputs: Mapping) -> list[Tensor]:
    """Feature maps of a backbone or neck for preprocessed inputs, each (B, ...).

    The statistics that a health monitor needs of the raw input follow as the last map.
    """
    if module == 'img_backbone':
        maps = model.image_maps(inputs['imgs'])
    elif module == 'pts_backbone':
        maps = model.bev_maps(inputs['voxels'], len(inputs['points']))
    else:
        extract = model.extract_img_feat if module == 'img_neck' else model.extract_pts_feat
        maps = [extract(inputs)]
    monitor = getattr(model, 'health_monitor', None)
    if monitor is None:
        return maps
    (branch,) = (branch for branch, names in BRANCHES.items() if module in names)
    return [*maps, monitor.statistics_of(branch, inputs)]


def _first_trained(model: nn.Module, names: list[str]) -> str | None:
    """The first submodule that trains or, in training, updates its statistics."""
    was_training = model.training
    model.train()
    try:
        for name in names:
            for inner, module in model.get_submodule(name).named_modules(prefix=name):
                if module.training or any(
                    p.requires_grad for p in module.parameters(recurse=False)
                ):
                    return inner
    finally:
        model.train(was_training)
    return None


def _digest(model: nn.Module, branch: str, names: list[str], dtype: torch.dtype) -> str:
    """Digest of everything that determines the features of a given sample."""
    modules = {name: model.get_submodule(name) for name in names}
    if getattr(model, 'health_monitor', None) is not None:
        modules['statistics'] = model.health_monitor.statistics[branch]
    # A fast path in the model's own precision gives the same features.
    precisions = [getattr(fast_path_of(module), 'dtype', None) for module in modules.values()]
    lower = [str(precision) for precision in precisions if precision is not None]
    weights = fingerprint_modules({**modules, 'data_preprocessor': model.data_preprocessor})
    return fingerprint(_VERSION, str(dtype), weights, lower)[:32]
