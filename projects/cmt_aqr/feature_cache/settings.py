"""Applies the setting ``feature_cache`` of a config to its pipelines and hooks."""

import inspect
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmdet3d.datasets import transforms as mmdet3d
from mmdet3d.registry import TRANSFORMS
from mmengine.config import Config, ConfigDict

from ..datasets import failures, transforms
from .hook import FeatureCacheHook
from .transform import DATA_KEYS, LoadCachedFeatures, PackWithFeatures

_LOADING = {
    'lidar': (
        mmdet3d.LoadPointsFromFile,
        mmdet3d.LoadPointsFromMultiSweeps,
        mmdet3d.PointsRangeFilter,
    ),
    'camera': (
        transforms.LoadMultiViewImages,
        transforms.ComputeLidar2Img,
        transforms.ResizeCropFlipImage,
    ),
}
_DRAWING = (failures.DrawIndex, failures.RandomFailure, failures.SensorFailure)
# They neither change points or images nor need them.
_INDEPENDENT = (
    mmdet3d.LoadAnnotations3D,
    mmdet3d.ObjectNameFilter,
    mmdet3d.ObjectRangeFilter,
)


def use_feature_cache(cfg: Config, datasets: Mapping[str, Iterable[dict]]) -> None:
    """Replaces the setting ``feature_cache`` with cached pipelines and a hook, if it is set.

    The setting has the arguments of :class:`FeatureCacheHook`, and ``branches``, which are cached:
    'lidar', 'camera' or, by default, both.

    Args:
        cfg: changed in place.
        datasets: configs of the datasets with a pipeline, by the name of their data loader.

    Raises:
        ValueError: for an unknown argument, and for a transform that changes points or images at
            random or is unknown; the message names it and the remedy.
    """
    settings = cfg.pop('feature_cache', None)
    if not settings:
        return
    branches = settings.pop('branches', list(DATA_KEYS))
    _check_settings(settings, branches)
    for loader, configs in datasets.items():
        for dataset in configs:
            try:
                pipeline = cached_pipeline(
                    dataset['pipeline'],
                    branches=branches,
                    directory=settings['directory'],
                    training=loader == 'train_dataloader',
                    fill_command=_fill_command(cfg, settings),
                )
            except ValueError as error:
                raise ValueError(f'feature_cache, pipeline of {loader}: {error}') from None
            dataset['pipeline'] = [ConfigDict(step) for step in pipeline]
    hook = dict(type=FeatureCacheHook.__name__, **settings)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def cached_pipeline(
    pipeline: Sequence[Mapping[str, Any]], *, branches: Iterable[str] = DATA_KEYS, **options: Any
) -> list[dict]:
    """A pipeline that reads features in place of points or images, its other steps unchanged.

    The first transform that loads the input of a branch is replaced by a
    :class:`LoadCachedFeatures` with all transforms of the branch, and the others are removed.

    Args:
        pipeline: configs of its steps; an already cached one is returned unchanged.
        branches: branches to be cached.
        options: other arguments of :class:`LoadCachedFeatures`.

    Raises:
        ValueError: see :func:`use_feature_cache`.
    """
    if any(_class(step) is LoadCachedFeatures for step in pipeline):
        return [*pipeline]
    cached, steps = {}, []
    for step in map(dict, pipeline):
        cls = _class(step)
        _check_not_random(step, cls)
        branch = next((b for b, classes in _LOADING.items() if issubclass(cls, classes)), None)
        if branch in branches:
            if branch not in cached:
                cached[branch] = dict(
                    type=LoadCachedFeatures.__name__, branch=branch, transforms=[], **options
                )
                steps.append(cached[branch])
            cached[branch]['transforms'].append(step)
        elif issubclass(cls, mmdet3d.Pack3DDetInputs):
            steps.append(dict(type=PackWithFeatures.__name__, packing=step))
        else:
            _check_known(step, cls, branch, drawing=not cached)
            steps.append(step)
    return steps


def _check_settings(settings: Mapping[str, Any], branches: object) -> None:
    allowed = [*inspect.signature(FeatureCacheHook).parameters, 'branches']
    unknown = [name for name in settings if name not in allowed]
    if unknown or 'directory' not in settings:
        raise ValueError(
            f'feature_cache has {[*settings]}; it needs directory and allows {", ".join(allowed)}'
        )
    if not isinstance(branches, list) or not branches or not set(branches) <= set(DATA_KEYS):
        raise ValueError(
            f'feature_cache.branches is {branches!r}; it must be a list of some of {[*DATA_KEYS]}'
        )
    FeatureCacheHook(**settings)


def _fill_command(cfg: Config, settings: Mapping[str, Any]) -> str:
    checkpoint = [cfg.load_from] if cfg.get('load_from') else []
    options = ['--cfg-options', *(f'feature_cache.{k}={v}' for k, v in settings.items())]
    return shlex.join(
        ['python', 'tools/cache_features.py', str(cfg.filename), *checkpoint, *options]
    )


def _check_known(step: Mapping, cls: type, branch: str | None, *, drawing: bool) -> None:
    """Raises a ValueError for a step that could change cached features, or fails after loading."""
    if branch or issubclass(cls, _INDEPENDENT) or (drawing and issubclass(cls, _DRAWING)):
        return
    if issubclass(cls, _DRAWING):
        raise ValueError(f'{step["type"]} must come before points and images are loaded')
    raise ValueError(
        f'{step["type"]} changes points or images at random, or is not known to leave them '
        f'unchanged, so features cannot be cached: remove {step["type"]} from the pipeline, or '
        'feature_cache from the config'
    )


def _check_not_random(step: Mapping[str, Any], cls: type) -> None:
    """Raises a ValueError for a known step whose options make the features random."""
    remedy = None
    if issubclass(cls, transforms.ResizeCropFlipImage) and step.get('training', True):
        remedy = 'set training=False'
    elif issubclass(cls, mmdet3d.LoadPointsFromMultiSweeps) and not step.get('test_mode'):
        remedy = 'set test_mode=True, which takes the latest sweeps'
    elif issubclass(cls, failures.DrawIndex) and step.get('variants') is None:
        remedy = 'set variants, the number of different draws of each sample'
    if remedy:
        raise ValueError(
            f'{step["type"]} is random in each epoch, so features cannot be cached: {remedy}'
        )


def _class(step: Mapping[str, Any]) -> type:
    kind = step['type']
    cls = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        raise ValueError(f'{kind} is not a registered transform')
    return cls
