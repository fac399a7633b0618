"""Freezing policies: the settings that select the frozen part of a module."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import nn

from .layers import Layers, classes_with_layers, find_layers
from .names import is_within, matching_submodules


@dataclass(frozen=True, kw_only=True)
class FreezePolicy:
    """Settings that select the frozen part of one module.

    The first five attributes each select layers. If several are set, the first one in the order
    below applies, and a warning names the ignored ones. Layer 0 is nearest the input; negative
    indices count from the output. The stem, such as a patch embedding, has no index and is frozen
    whenever any layer is. Whatever follows the last layer, such as a final norm, is frozen only if
    all layers are.

    Attributes:
        unfreeze_layers: indices of the trainable layers; all others and the stem are frozen.
        freeze_layers: indices of the frozen layers.
        freeze_ratio: frozen share of the layers, counted from the input and rounded down.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n layers.
        frozen: whether the whole module is frozen. Works for any module; the other four need one
            with known layers.
        always_trainable: patterns of submodules that are never frozen, in `fnmatch` syntax, for
            the dotted name within the module or its end: 'norm1', 'layer4.*.conv3'.
        norm_eval: whether norms with running statistics stay in evaluation mode, frozen or not.
    """

    unfreeze_layers: Sequence[int] | None = None
    freeze_layers: Sequence[int] | None = None
    freeze_ratio: float | None = None
    frozen_stages: int | None = None
    frozen: bool = False
    always_trainable: Sequence[str] = ()
    norm_eval: bool = False

    def selection(self) -> dict[str, Any]:
        """The settings that select layers and are set, by precedence."""
        values = {name: getattr(self, name) for name in (*_LAYER_SETTINGS, 'frozen')}
        return {n: value for n, value in values.items() if value is not None and value is not False}


_LAYER_SETTINGS = ('unfreeze_layers', 'freeze_layers', 'freeze_ratio', 'frozen_stages')


class FrozenNames(NamedTuple):
    """Dotted names within a module; each includes everything below it, and '' is the module."""

    frozen: tuple[str, ...]
    """frozen submodules and parameters"""
    trainable: tuple[str, ...]
    """submodules exempt from freezing"""

    def covers(self, name: str) -> bool:
        """Whether the submodule or parameter ``name`` is frozen."""
        return is_within(name, self.frozen) and not is_within(name, self.trainable)


def resolve(policy: FreezePolicy, module: nn.Module, *, label: str) -> FrozenNames:
    """The names that ``policy`` freezes in ``module``, which is left unchanged.

    Raises:
        ValueError: a setting has the wrong type, is out of range for the module or contradicts
            another one; the message calls the module ``label``.
    """
    try:
        _check_types(policy)
        return FrozenNames(
            frozen=_frozen_names(policy.selection(), module, label),
            trainable=matching_submodules(
                module, policy.always_trainable, option='always_trainable'
            ),
        )
    except ValueError as error:
        raise ValueError(f'{label}: {error}') from None


def _frozen_names(selection: Mapping[str, Any], module: nn.Module, label: str) -> tuple[str, ...]:
    if not selection:
        return ()
    (setting, value), *ignored = selection.items()
    if setting == 'frozen':
        if next(module.parameters(), None) is None:
            print_log(f'{label} is frozen, but has no parameters', logger='current')
        return ('',)
    layers = find_layers(module)
    if layers is None:
        raise ValueError(
            f'{setting} {value!r} needs the ordered layers of the module, which are unknown for '
            f'{type(module).__name__}; use frozen=True, or register them with '
            f'projects.cmt_aqr.freezing.register_layers (known: {", ".join(classes_with_layers())})'
        )
    # Ignored settings must be valid, too.
    indices = {name: _frozen_indices(name, selection[name], layers) for name in selection}
    _check_contradiction(indices)
    if ignored:
        others = ', '.join(f'{name} {other!r}' for name, other in ignored)
        _warn(f'{label}: {setting} {value!r} applies; ignored: {others}')
    frozen = indices[setting]
    if setting == 'freeze_ratio' and value > 0 and not frozen:
        _warn(f'{label}: freeze_ratio {value!r} of {len(layers.layers)} layers freezes none')
    if len(frozen) == len(layers.layers):
        return ('',)
    frozen_layers = [name for index in sorted(frozen) for name in layers.layers[index]]
    if frozen or setting == 'unfreeze_layers' or (setting, value) == ('frozen_stages', 0):
        return (*layers.stem, *frozen_layers)
    return ()


def _frozen_indices(setting: str, value: Any, layers: Layers) -> set[int]:
    """Indices of the layers frozen by one setting."""
    count = len(layers.layers)
    if setting == 'unfreeze_layers':
        return set(range(count)) - _from_input(setting, value, count)
    if setting == 'freeze_layers':
        return _from_input(setting, value, count)
    if setting == 'freeze_ratio':
        # As a float, 0.29 * 100 is 28.999...
        return set(range(math.floor(value * count + 1e-9)))
    if setting == 'frozen_stages':
        _check_stage(value, layers)
        return set(range(max(value, 0)))
    return set(range(count))


def _from_input(setting: str, indices: Sequence[int], count: int) -> set[int]:
    """Indices counted from the input; negative ones are converted."""
    invalid = [index for index in indices if not -count <= index < count]
    if invalid:
        raise ValueError(
            f'{setting} {", ".join(map(str, invalid))} out of range: it has {count} layers, '
            f'0 to {count - 1} from the input or -1 to -{count} from the output'
        )
    return {index % count for index in indices}


# Checks of the settings.


def _is(value: Any, kind: type) -> bool:
    """Whether ``value`` is of this type; unlike in Python, a bool is not a number."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_list(value: Any, kind: type) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and all(_is(item, kind) for item in value)


_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    'unfreeze_layers': (lambda value: _is_list(value, Integral), 'a list of layer indices'),
    'freeze_layers': (lambda value: _is_list(value, Integral), 'a list of layer indices'),
    'freeze_ratio': (lambda value: _is(value, Real) and 0 <= value <= 1, 'a number from 0 to 1'),
    'frozen_stages': (lambda value: _is(value, Integral), 'an integer'),
    'frozen': (lambda value: isinstance(value, bool), 'True or False'),
    'always_trainable': (lambda value: _is_list(value, str), 'a list of submodule name patterns'),
    'norm_eval': (lambda value: isinstance(value, bool), 'True or False'),
}


def _check_types(policy: FreezePolicy) -> None:
    for setting, (is_allowed, allowed) in _ALLOWED.items():
        value = getattr(policy, setting)
        is_unset = value is None and setting in _LAYER_SETTINGS
        if not is_unset and not is_allowed(value):
            raise ValueError(f'{setting} {value!r} must be {allowed}')


def _check_stage(stage: int, layers: Layers) -> None:
    count = len(layers.layers)
    if stage == 0 and not layers.stem:
        problem = 'freezes the stem, but the module has none'
    elif not -1 <= stage <= count:
        problem = f'is not in -1 to {count}'
    else:
        return
    stem, and_stem = ('0 the stem, ', 'the stem and ') if layers.stem else ('', '')
    raise ValueError(
        f'frozen_stages {stage} {problem}: -1 freezes nothing, {stem}'
        f'n {and_stem}the first n of {count} layers'
    )


def _check_contradiction(frozen: Mapping[str, set[int]]) -> None:
    if {'unfreeze_layers', 'freeze_layers'} <= set(frozen):
        shared = sorted(frozen['freeze_layers'] - frozen['unfreeze_layers'])
        if shared:
            raise ValueError(
                f'freeze_layers and unfreeze_layers share layer {", ".join(map(str, shared))}; '
                'list it in one of them'
            )


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
