"""Settings of MMDetection3D 0.x and of other projects that mmengine would silently ignore.

A config copied from there builds and trains, but not with these settings.
"""

from collections.abc import Iterator, Mapping, Sequence

OLD_KEYS = dict(
    data='train_dataloader, val_dataloader and test_dataloader',
    optimizer='optim_wrapper=dict(optimizer=...)',
    optimizer_config='optim_wrapper=dict(clip_grad=...)',
    fp16="optim_wrapper=dict(type='AmpOptimWrapper'), or --amp",
    lr_config='param_scheduler, with every end as a ratio (eta_min_ratio)',
    momentum_config='param_scheduler, with every end as a ratio (eta_min_ratio)',
    runner='train_cfg',
    total_epochs='train_cfg=dict(max_epochs=...)',
    workflow='train_cfg and val_cfg',
    evaluation='val_evaluator, and train_cfg=dict(val_interval=...)',
    checkpoint_config='default_hooks=dict(checkpoint=...)',
    log_config='default_hooks=dict(logger=...)',
    resume_from='load_from with resume=True, or --resume',
    dist_params='env_cfg=dict(dist_cfg=...)',
    cudnn_benchmark='env_cfg=dict(cudnn_benchmark=...)',
    plugin_dir='custom_imports=dict(imports=[...])',
)
"""Top-level keys, with their successors."""

# A config may define a variable of such a name if it uses the value here.
_PLACES = dict(
    optimizer=('optim_wrapper', 'optimizer'),
    total_epochs=('train_cfg', 'max_epochs'),
    cudnn_benchmark=('env_cfg', 'cudnn_benchmark'),
)


def find_old_settings(cfg: Mapping) -> list[str]:
    """Messages on the settings without effect in a config, each with its remedy."""
    return [*_old_keys(cfg), *_optimizer_hooks(cfg), *_exclude_frozen(cfg), *_resize_limits(cfg)]


def _old_keys(cfg: Mapping) -> Iterator[str]:
    for key, successor in OLD_KEYS.items():
        if key in cfg and not (key in _PLACES and _value_at(cfg, _PLACES[key]) == cfg[key]):
            yield f'{key} is of MMDetection3D 0.x and has no effect: use {successor}'


def _value_at(cfg: Mapping, place: Sequence[str]) -> object:
    value = cfg
    for key in place:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _optimizer_hooks(cfg: Mapping) -> Iterator[str]:
    for where, setting in _settings(cfg):
        if isinstance(setting, Mapping) and str(setting.get('type')).endswith('OptimizerHook'):
            yield (
                f'{where} is an {setting["type"]}, which mmengine has not: use '
                'optim_wrapper=dict(clip_grad=..., accumulative_counts=...)'
            )


def _exclude_frozen(cfg: Mapping) -> Iterator[str]:
    for where, setting in _settings(cfg):
        if where.endswith('.exclude_frozen_parameters'):
            yield (
                f'{where}={setting!r} has no effect: remove it, for '
                "optim_wrapper=dict(constructor='StrictOptimWrapperConstructor') always leaves "
                'frozen parameters out'
            )


def _resize_limits(cfg: Mapping) -> Iterator[str]:
    for where, setting in _settings(cfg):
        if where.endswith('.resize_lim'):
            yield (
                f'{where}={setting!r} is relative to the size of the file: use zoom_lim, relative '
                'to the factor that fills final_dim, such as zoom_lim=(0.94, 1.25)'
            )
            return  # once, not for every pipeline


def _settings(config: object, where: str = '') -> Iterator[tuple[str, object]]:
    """All settings of a config, each after its path."""
    if isinstance(config, Mapping):
        inner = [(f'{where}.{key}' if where else str(key), value) for key, value in config.items()]
    elif isinstance(config, list | tuple):
        inner = [(f'{where}[{index}]', value) for index, value in enumerate(config)]
    else:
        return
    for place, value in inner:
        yield place, value
        yield from _settings(value, place)
