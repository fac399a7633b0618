"""Checks of a config before anything is built: classes, their options, and settings that clash."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmdet3d import registry
from mmdet3d.evaluation.metrics import NuScenesMetric
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from ..freezing import FreezePolicy
from ..usage_error import UsageError, did_you_mean
from .signatures import Options, options_of, registered, unknown_class, unknown_option

_DATA = ('DATASETS', 'TRANSFORMS', 'DATA_SAMPLERS')
# Registries of the classes below each top-level name.
_REGISTRIES = dict(
    model=('MODELS', 'TASK_UTILS'),
    train_dataloader=_DATA,
    val_dataloader=_DATA,
    test_dataloader=_DATA,
    optim_wrapper=('OPTIM_WRAPPERS', 'OPTIMIZERS'),
    param_scheduler=('PARAM_SCHEDULERS',),
    train_cfg=('LOOPS',),
    val_cfg=('LOOPS',),
    test_cfg=('LOOPS',),
    val_evaluator=('METRICS', 'EVALUATOR'),
    test_evaluator=('METRICS', 'EVALUATOR'),
    default_hooks=('HOOKS',),
    custom_hooks=('HOOKS',),
    log_processor=('LOG_PROCESSORS',),
)
_FREEZING = {field.name for field in dataclasses.fields(FreezePolicy)}
# Options that the Runner takes out before it builds an object.
_OF_THE_RUNNER = dict(
    dataloader={'dataset', 'num_batch_per_epoch', 'disable_subprocess_warning'},
    # `dtype` is an option of the wrapper that --amp puts in place of OptimWrapper.
    optim_wrapper={'optimizer', 'constructor', 'paramwise_cfg', 'dtype'},
    param_scheduler={'convert_to_iter_based', 'epoch_length'},
    train_cfg={'by_epoch'},
    hooks={'priority'},
)
_SCORES = ('NDS', 'mAP', *NuScenesMetric.ErrNameMapping.values())


def check_config(cfg: Config) -> None:
    """Check what a config names, and what its settings say of each other.

    Raises:
        UsageError: an unknown class or option, or settings without the effect that they seem to
            have; the message has all of them.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
        faults = [
            *_classes_and_options(cfg),
            *_validation_beyond_the_end(cfg),
            *_undeclared_sensors(cfg),
            *_unknown_best_score(cfg),
        ]
    if faults:
        raise UsageError(f'config {cfg.filename}: {"; ".join(dict.fromkeys(faults))}')


def _classes_and_options(cfg: Config) -> Iterator[str]:
    for root, registries in _REGISTRIES.items():
        for where, settings in _objects(cfg.get(root), root):
            yield from _check_object(where, settings, registries)
    randomness = options_of(Runner.set_randomness)
    for option in cfg.get('randomness') or {}:
        if option not in randomness.names:
            yield unknown_option('randomness', option, randomness)


def _objects(settings: Any, where: str) -> Iterator[tuple[str, Mapping]]:
    """Configs of objects with their dotted names, the outermost first.

    Layers are left out: their builders decide what ``norm_cfg``, ``init_cfg`` and others may hold.
    """
    if isinstance(settings, Mapping):
        if 'type' in settings or _default_class(where, settings):
            yield where, settings
        for key, value in settings.items():
            if not (key.endswith('_cfg') or key in ('type', 'metainfo')):
                yield from _objects(value, f'{where}.{key}')
    elif isinstance(settings, list | tuple):
        for index, value in enumerate(settings):
            yield from _objects(value, f'{where}.{index}')


def _default_class(where: str, settings: Mapping) -> type | None:
    """Class of an object whose config may leave out the type."""
    if where.endswith('_dataloader'):
        return DataLoader
    loops = dict(
        train_cfg=EpochBasedTrainLoop if settings.get('by_epoch') else IterBasedTrainLoop,
        val_cfg=ValLoop,
        test_cfg=TestLoop,
    )
    return loops.get(where)


def _check_object(where: str, settings: Mapping, registries: tuple[str, ...]) -> Iterator[str]:
    kind = settings.get('type') or _default_class(where, settings)
    classes = [kind]
    if isinstance(kind, str):
        choices = [getattr(registry, name) for name in registries]
        classes = [choice.get(kind) for choice in choices if choice.get(kind) is not None]
        if not classes:
            # A class may look up `type` in a table of its own, or in another scope.
            similar = (choice for choice in choices if _is_misspelt(kind, choice))
            yield from (f'{where}: {unknown_class(kind, choice)}' for choice in similar)
            return
    name = kind if isinstance(kind, str) else kind.__name__
    extra = {'type', '_scope_', '_delete_', *_added_options(where)}
    options = [options_of(cls) for cls in classes]
    for option in settings:
        if option not in extra and not any(_may_have(option, one) for one in options):
            yield f'{where}: {unknown_option(name, option, options[0])}'


def _is_misspelt(name: str, choice: Registry) -> bool:
    bare, known = name.rpartition('.')[2], registered(choice)
    return bare not in known and bool(did_you_mean(bare, known, cutoff=0.8))


def _may_have(option: str, options: Options) -> bool:
    """Whether a class may have an option; one with open ``**kwargs`` lacks a misspelt one only."""
    if option in options.names:
        return True
    return not options.complete and not did_you_mean(option, options.names, cutoff=0.8)


def _added_options(where: str) -> set[str]:
    """Options that others than the class of an object take from its config."""
    root, *path = where.split('.')
    added: set[str] = set()
    for name, options in _OF_THE_RUNNER.items():
        if root.endswith(name) and len(path) <= 1:
            added |= options
    # Parts of parts can be frozen too: the transformer of a head, a tower of a DualEncoder.
    return added | (_FREEZING if root == 'model' and path else set())


def _validation_beyond_the_end(cfg: Config) -> Iterator[str]:
    """mmengine always validates after the last epoch."""
    loop = cfg.get('train_cfg') or {}
    for unit in ('max_epochs', 'max_iters'):
        last = loop.get(unit)
        begin, interval = loop.get('val_begin', 1), loop.get('val_interval', 1)
        numbers = all(isinstance(value, int) for value in (last, begin, interval))
        if numbers and cfg.get('val_cfg') is not None and begin <= last < interval:
            yield (
                f'train_cfg.val_interval={interval} does not switch validation off, for the end of '
                f'{unit}={last} is always validated: set val_begin={last + 1} to switch it off, or '
                f'val_interval={last}'
            )


def is_scored(cfg: Config, dataloader: str) -> bool:
    """Whether an evaluator scores the samples of a dataloader by nuScenes' tables."""
    evaluators = _evaluators(cfg, dataloader.removesuffix('_dataloader'))
    return any(_is_official(cls) and not one.get('format_only') for cls, one in evaluators)


def _is_official(cls: type | None) -> bool:
    return cls is not None and issubclass(cls, NuScenesMetric)


def _undeclared_sensors(cfg: Config) -> Iterator[str]:
    """A result file of nuScenes declares the sensors that it was computed from."""
    for name in ('val', 'test'):
        dataset = (cfg.get(f'{name}_dataloader') or {}).get('dataset', {})
        used = {sensor for sensor, used in dataset.get('modality', {}).items() if used}
        for cls, evaluator in _evaluators(cfg, name):
            if not _is_official(cls):
                continue
            declared = evaluator.get('modality') or _default_modality()
            declared = {sensor for sensor, used in declared.items() if used}
            if used and used != declared:
                yield (
                    f'{name}_evaluator.modality declares {", ".join(sorted(declared))} in the '
                    f'result files, but the data has {", ".join(sorted(used))}: give it the '
                    'modality of the dataset'
                )


def _default_modality() -> dict[str, bool]:
    return inspect.signature(NuScenesMetric).parameters['modality'].default


def _evaluators(cfg: Config, name: str) -> list[tuple[type | None, Mapping]]:
    """Class and config of each evaluator."""
    evaluators = cfg.get(f'{name}_evaluator') or []
    evaluators = [evaluators] if isinstance(evaluators, Mapping) else evaluators
    return [(registry.METRICS.get(str(one.get('type'))), one) for one in evaluators]


def _unknown_best_score(cfg: Config) -> Iterator[str]:
    """mmengine notices an unknown score only after the first validation."""
    best = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    evaluators = _evaluators(cfg, 'val')
    if not best or not all(cls and issubclass(cls, NuScenesMetric) for cls, _ in evaluators):
        return
    parents = [
        f'{one.get("prefix") or "NuScenes metric"}/pred_instances_3d_NuScenes'
        for _, one in evaluators
    ]
    known = [f'{parent}/{score}' for parent in parents for score in _SCORES]
    if any(hook['type'] == 'ScoreNamesHook' for hook in cfg.get('custom_hooks') or []):
        known += ['mAP', 'NDS']
    classes = tuple(f'{parent}/{name}_' for parent in parents for name in _classes(cfg))
    for score in [best] if isinstance(best, str) else best:
        if score != 'auto' and score not in known and not score.startswith(classes):
            whole = [name for name in known if name.endswith(f'/{score}')]
            hint = did_you_mean((whole or [score])[0], known) or f'; there are {", ".join(known)}'
            yield f'default_hooks.checkpoint.save_best: no score {score}{hint}'


def _classes(cfg: Config) -> list[str]:
    return cfg.val_dataloader.dataset.get('metainfo', {}).get('classes', [])
