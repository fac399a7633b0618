"""Building a module from a config that may contain freezing settings."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import Registry
from torch import nn

from .freeze_handle import freeze
from .layers import has_known_layers
from .policy import FreezePolicy


def build_freezable(config: Mapping, registry: Registry, *, name: str) -> nn.Module:
    """Build a module and apply the :class:`FreezePolicy` settings of its config.

    A setting that the class accepts itself, such as `norm_eval` of mmdet's ResNet, is passed to the
    class. Only `frozen_stages` always belongs to the policy if the layers of the class are known:
    it then has the same meaning for every class and can be changed later.

    Raises:
        ValueError: the policy does not fit the module, which the message calls ``name``.
    """
    cls = config.get('type')
    if isinstance(cls, str):
        with registry.switch_scope_and_registry(config.get('_scope_')) as scoped:
            cls = scoped.get(cls)
    settings = {
        field.name: config[field.name]
        for field in dataclasses.fields(FreezePolicy)
        if field.name in config and not _accepts(cls, field.name)
    }
    module = registry.build({key: value for key, value in config.items() if key not in settings})
    return freeze(module, FreezePolicy(**settings), name=name) if settings else module


def _accepts(cls: Any, setting: str) -> bool:
    """Whether the class, rather than the policy, receives a setting."""
    if not inspect.isclass(cls) or (setting == 'frozen_stages' and has_known_layers(cls)):
        return False
    for base in cls.__mro__:
        if '__init__' in vars(base):
            parameters = inspect.signature(base.__init__).parameters
            if setting in parameters:
                return True
            if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
                return False
    return False
