"""From the one setting ``feature_cache`` of a config to pipelines and a hook that have a cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmdet3d.datasets import transforms as of_mmdet3d
from mmdet3d.registry import TRANSFORMS
from mmengine.config import Config, ConfigDict

from ..datasets import failures, transforms
from .hook import FeatureCacheHook
from .lookup import META_KEY
from .transform import CachedFeatures

_LOADS = {
    'lidar': (
        of_mmdet3d.LoadPointsFromFile,
        of_mmdet3d.LoadPointsFromMultiSweeps,
        of_mmdet3d.PointsRangeFilter,
    ),
    'camera': (
        transforms.LoadMultiViewImages,
        transforms.ComputeLidar2Img,
        transforms.ResizeCropFlipImage,
    ),
}
_DRAWS = (failures.DrawIndex, failures.RandomFailure, failures.SensorFailure)
# What neither changes points or images nor needs them.
_BESIDE = (
    of_mmdet3d.LoadAnnotations3D,
    of_mmdet3d.ObjectNameFilter,
    of_mmdet3d.ObjectRangeFilter,
    of_mmdet3d.Pack3DDetInputs,
)
_REMEDY = 'leave {step} out of the pipeline, or leave feature_cache out of the config'


def use_feature_cache(cfg: Config, datasets: Mapping[str, Iterable[dict]]) -> None:
    """Carry out ``feature_cache``, the arguments of a :class:`FeatureCacheHook`, if it is there.

    Every pipeline is put in this order: what draws failures; for each branch a
    :class:`CachedFeatures` around what loads its input; and what is done beside, such as loading
    and filtering boxes. The setting is taken out of the config, which then says it all.

    Args:
        cfg: changed in place.
        datasets: configs of the datasets with a pipeline, by the name of their data loader.

    Raises:
        ValueError: for an unknown argument, and for a transform that changes points or images at
            random or is not known; the message names it and the remedy.
    """
    settings = cfg.pop('feature_cache', None)
    if not settings:
        return
    _check_settings(settings)
    for loader, configs in datasets.items():
        for dataset in configs:
            try:
                pipeline = cached_pipeline(
                    dataset['pipeline'],
                    directory=settings['directory'],
                    training=loader == 'train_dataloader',
                )
            except ValueError as error:
                raise ValueError(f'feature_cache, pipeline of {loader}: {error}') from None
            dataset['pipeline'] = [ConfigDict(step) for step in pipeline]
    hook = dict(type=FeatureCacheHook.__name__, **settings)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def cached_pipeline(
    pipeline: Sequence[Mapping[str, Any]], *, directory: str, training: bool
) -> list[dict]:
    """A pipeline that looks features up before it loads what they are made of.

    Args:
        pipeline: configs of its steps; one that has a cache already stays as it is.
        directory: of the cache.
        training: whether the model will be in training mode, for voxels may have other limits then.

    Raises:
        ValueError: see :func:`use_feature_cache`.
    """
    parts: dict[str, list] = {'draws': [], 'lidar': [], 'camera': [], 'beside': []}
    if any(_class(step) is CachedFeatures for step in pipeline):
        return [*pipeline]
    for step in pipeline:
        parts[_part(step)].append(dict(step))
    cached = [
        dict(
            type=CachedFeatures.__name__,
            branch=branch,
            transforms=parts[branch],
            directory=directory,
            training=training,
        )
        for branch in ('lidar', 'camera')
        if parts[branch]
    ]
    return [*parts['draws'], *cached, *map(_with_lookups, parts['beside'])]


def _check_settings(settings: Mapping[str, Any]) -> None:
    allowed = [*inspect.signature(FeatureCacheHook).parameters]
    unknown = [name for name in settings if name not in allowed]
    if unknown or 'directory' not in settings:
        raise ValueError(
            f'feature_cache has {[*settings]}; it needs directory and allows {", ".join(allowed)}'
        )
    FeatureCacheHook(**settings)


def _part(step: Mapping[str, Any]) -> str:
    """Where in the new order a step belongs."""
    cls = _class(step)
    _check_no_chance(step, cls)
    if issubclass(cls, _DRAWS):
        return 'draws'
    for branch, classes in _LOADS.items():
        if issubclass(cls, classes):
            return branch
    if issubclass(cls, _BESIDE):
        return 'beside'
    raise ValueError(
        f'{step["type"]} changes points or images at random, or is not known to leave them alone, '
        f'so features cannot be cached: {_REMEDY.format(step=step["type"])}'
    )


def _check_no_chance(step: Mapping[str, Any], cls: type) -> None:
    """Refuse a known step whose options let chance decide what the features are."""
    remedy = None
    if issubclass(cls, transforms.ResizeCropFlipImage) and step.get('training', True):
        remedy = 'set training=False'
    elif issubclass(cls, of_mmdet3d.LoadPointsFromMultiSweeps) and not step.get('test_mode'):
        remedy = 'set test_mode=True, which takes the latest sweeps'
    elif issubclass(cls, failures.DrawIndex) and step.get('variants') is None:
        remedy = 'set variants, the number of draws of each sample that are kept'
    if remedy:
        raise ValueError(
            f'{step["type"]} draws anew each time, so features cannot be cached: {remedy}'
        )


def _class(step: Mapping[str, Any]) -> type:
    kind = step['type']
    cls = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        raise ValueError(f'{kind} is not a registered transform')
    return cls


def _with_lookups(step: dict) -> dict:
    """Let what was looked up reach the model."""
    if not issubclass(_class(step), of_mmdet3d.Pack3DDetInputs):
        return step
    parameters = inspect.signature(of_mmdet3d.Pack3DDetInputs).parameters
    meta_keys = step.get('meta_keys', parameters['meta_keys'].default)
    return dict(step, meta_keys=(*meta_keys, META_KEY))
