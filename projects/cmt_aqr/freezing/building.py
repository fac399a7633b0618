"""Freezing a module by a policy, from Python or while it is built from its config."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import Registry
from torch import nn

from .keeper import Keeper, keeper_of
from .layers import find_layers, has_known_layers
from .policy import FreezePolicy, FrozenNames, resolve


def freeze(module: nn.Module, policy: FreezePolicy, *, name: str | None = None) -> nn.Module:
    """Freeze what ``policy`` says, until another policy takes its place.

    A second call lets train again what the first froze, but not what was frozen otherwise. A
    module's own ``norm_eval`` stays in force, and so does its own ``frozen_stages``, which
    counts as the policy's where that freezes nothing.

    The policy acts through an attribute ``train`` of the module, and so holds when a parent's
    ``train()`` reaches the module, in a deep copy and after pickling. Only the mode is set again
    by ``train()``: a parameter that others have let train goes on training.

    Args:
        module: changed in place.
        policy: what to freeze.
        name: of the module, for messages.

    Returns:
        ``module``.

    Raises:
        ValueError: the policy does not fit the module. The message names the module, the value
            and what is allowed; nothing has been changed then.
    """
    names = preview(module, policy, name=name)
    norm_eval = policy.norm_eval or getattr(module, 'norm_eval', False)
    earlier = keeper_of(module)
    if earlier is not None:
        earlier.release()
    if names.frozen or norm_eval:
        Keeper(module, names, norm_eval=norm_eval).take_hold()
    return module


def preview(module: nn.Module, policy: FreezePolicy, *, name: str | None = None) -> FrozenNames:
    """What :func:`freeze` would freeze; nothing is changed.

    Args and errors: as :func:`freeze`.
    """
    label = f'{name} ({type(module).__name__})' if name else type(module).__name__
    own_stages = _own_frozen_stages(module)
    if own_stages is None:
        return resolve(policy, module, label=label)
    if not policy.choices():
        policy = dataclasses.replace(policy, frozen_stages=own_stages)
    names = resolve(policy, module, label=label)
    _check_own_stages(own_stages, module, names, label)
    return names


def build_freezable(config: Mapping, registry: Registry, *, name: str) -> nn.Module:
    """Build a module whose config may hold settings of :class:`FreezePolicy`, and freeze it.

    Settings that the class itself takes are its own, as `norm_eval` of mmdet's ResNet; but
    `frozen_stages` is always the policy's where the layers of the class are known, so that it means
    the same, and can be changed later, for every class.

    Args:
        config: ``type``, arguments of the class and settings of the policy.
        registry: where the class is registered.
        name: of the module, for messages.

    Raises:
        ValueError: as :func:`freeze`.
    """
    cls = _class_of(config, registry)
    settings = {
        field.name
        for field in dataclasses.fields(FreezePolicy)
        if field.name in config and not _is_own_setting(cls, field.name)
    }
    module = registry.build({k: v for k, v in config.items() if k not in settings})
    if settings:
        freeze(module, FreezePolicy(**{k: config[k] for k in settings}), name=name)
    return module


def _own_frozen_stages(module: nn.Module) -> int | None:
    """The number that the class was given for itself, if it freezes anything."""
    own = getattr(module, 'frozen_stages', None)
    return own if isinstance(own, int) and own >= 0 and find_layers(module) is not None else None


def _check_own_stages(own_stages: int, module: nn.Module, names: FrozenNames, label: str) -> None:
    """Refuse to let train what the class itself freezes again in each of its ``train()``."""
    own = resolve(FreezePolicy(frozen_stages=own_stages), module, label=label)
    if any(own.cover(n) and not names.cover(n) for n, _ in module.named_parameters()):
        raise ValueError(
            f'{label} was built with its own frozen_stages {own_stages}, and freezes these at '
            'every train(); for a policy that lets any of them train build it with '
            'frozen_stages=-1'
        )


# Classes in a registry.


def _class_of(config: Mapping, registry: Registry) -> Any:
    """What the registry will build, or ``None`` where it will raise."""
    if not isinstance(config.get('type'), str):
        return config.get('type')
    # As the registry itself looks it up when it builds.
    with registry.switch_scope_and_registry(config.get('_scope_')) as scoped:
        return scoped.get(config['type'])


def _is_own_setting(cls: Any, setting: str) -> bool:
    """Whether a setting in a config is meant for the class rather than for the policy."""
    if not inspect.isclass(cls) or (setting == 'frozen_stages' and has_known_layers(cls)):
        return False
    return _takes(cls, setting)


def _takes(cls: type, argument: str) -> bool:
    """Whether the constructor has the argument, or hands it on to one that has."""
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        if argument in parameters:
            return True
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            return False
    return False
