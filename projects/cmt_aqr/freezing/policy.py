"""What of a module is frozen: the settings, and the submodules that they mean."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import nn

from .layers import Layers, classes_with_layers, find_layers, is_within


@dataclass(frozen=True, kw_only=True)
class FreezePolicy:
    """What of one module is frozen.

    Where several settings are given, the one that stands first in this list wins and a logged line
    names the others. Layer 0 is nearest the input and negative indices count from the end. The
    stem, such as a patch embedding, has no index and is frozen whenever any layer is. What comes
    after the layers, such as a final norm, is frozen only when all layers are.

    Attributes:
        unfreeze_layers: layers that train; all other layers and the stem are frozen.
        freeze_layers: layers that are frozen.
        freeze_ratio: share of the layers that is frozen, from the input on, rounded down.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n layers.
        frozen: freeze the whole module; the only one of these that needs no layers.
        always_trainable: patterns of submodules that are never frozen, as `fnmatch` reads them,
            for the dotted name within the module or the end of it: 'norm1', 'layer4.*.conv3'.
        norm_eval: keep all norms with running statistics in evaluation mode, frozen or not.
    """

    unfreeze_layers: Sequence[int] | None = None
    freeze_layers: Sequence[int] | None = None
    freeze_ratio: float | None = None
    frozen_stages: int | None = None
    frozen: bool = False
    always_trainable: Sequence[str] = ()
    norm_eval: bool = False

    def choices(self) -> list[str]:
        """The settings given of those that choose what is frozen, the strongest first."""
        given = [setting for setting in _LAYER_SETTINGS if getattr(self, setting) is not None]
        return [*given, 'frozen'] if self.frozen is not False else given


_LAYER_SETTINGS = ('unfreeze_layers', 'freeze_layers', 'freeze_ratio', 'frozen_stages')


class FrozenNames(NamedTuple):
    """Names within a module; each stands for all that lies below it, '' for the module itself.

    Attributes:
        frozen: submodules and parameters that are frozen.
        trainable: submodules that are excepted from it.
    """

    frozen: tuple[str, ...]
    trainable: tuple[str, ...]

    def cover(self, name: str) -> bool:
        """Whether the submodule or parameter called ``name`` is frozen."""
        return is_within(name, self.frozen) and not is_within(name, self.trainable)


def resolve(policy: FreezePolicy, module: nn.Module, *, label: str) -> FrozenNames:
    """Find what ``policy`` means in ``module``; nothing is changed.

    Args:
        policy: what to freeze.
        module: of which.
        label: what messages call the module.

    Raises:
        ValueError: the policy does not fit the module.
    """
    _check_types(policy, label)
    return FrozenNames(
        frozen=_frozen_names(policy, module, label),
        trainable=_matching_submodules(policy.always_trainable, module, label),
    )


def _frozen_names(policy: FreezePolicy, module: nn.Module, label: str) -> tuple[str, ...]:
    given = policy.choices()
    if not given:
        return ()
    if given == ['frozen']:
        if next(module.parameters(), None) is None:
            _log(f'{label} is frozen, but has no parameters')
        return ('',)
    layers = find_layers(module)
    winner, value = given[0], getattr(policy, given[0])
    if layers is None:
        raise ValueError(
            f'{label}: {winner} {value!r} needs layers, and those of {type(module).__name__} are '
            'not known; use frozen=True, or register them with '
            'projects.cmt_aqr.freezing.register_layers; known are '
            f'{", ".join(classes_with_layers())}'
        )
    chosen = {
        setting: _chosen_layers(setting, getattr(policy, setting), layers, label)
        for setting in given
        if setting != 'frozen'
    }
    _check_no_contradiction(chosen, layers, label)
    if given[1:]:
        ignored = ', '.join(f'{setting} {getattr(policy, setting)!r}' for setting in given[1:])
        _log(f'{label}: {winner} {value!r} wins, ignored: {ignored}')
    if winner == 'freeze_ratio' and value > 0 and not chosen[winner]:
        _log(f'{label}: freeze_ratio {value!r} of {len(layers.layers)} layers freezes none')
    only_stem = winner == 'unfreeze_layers' or (winner == 'frozen_stages' and value == 0)
    return _names(chosen[winner], layers, stem=bool(chosen[winner]) or only_stem)


def _chosen_layers(setting: str, value: Any, layers: Layers, label: str) -> set[int]:
    """Indices of the layers that one setting freezes."""
    count = len(layers.layers)
    if setting == 'unfreeze_layers':
        return set(range(count)) - _indices_from_input(setting, value, count, label)
    if setting == 'freeze_layers':
        return _indices_from_input(setting, value, count, label)
    if setting == 'freeze_ratio':
        # A share such as 0.29 of 100 is 28.999... as a float.
        return set(range(math.floor(value * count + 1e-9)))
    _check_stage(value, layers, label)
    return set(range(max(value, 0)))


def _names(frozen_layers: set[int], layers: Layers, *, stem: bool) -> tuple[str, ...]:
    if len(frozen_layers) == len(layers.layers):
        return ('',)
    names = [name for i in sorted(frozen_layers) for name in layers.layers[i]]
    return (*layers.stem, *names) if stem else ()


def _matching_submodules(patterns: Sequence[str], module: nn.Module, label: str) -> tuple[str, ...]:
    """Names of the submodules that any of the patterns matches.

    Raises:
        ValueError: a pattern matches none.
    """
    names = [name for name, _ in module.named_modules() if name]
    matches = []
    for pattern in patterns:
        found = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f'*.{pattern}')]
        if not found:
            children = ', '.join(name for name, _ in module.named_children()) or 'none'
            raise ValueError(
                f'{label}: always_trainable {pattern!r} matches no submodule; it has {children} '
                'and what lies below'
            )
        matches += found
    return tuple(matches)


# Checks of the settings.


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= 1


def _is_list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and all(is_right(item) for item in value)

    return check


_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    'unfreeze_layers': (_is_list_of(_is_int), 'a list of indices of layers'),
    'freeze_layers': (_is_list_of(_is_int), 'a list of indices of layers'),
    'freeze_ratio': (_is_share, 'a number from 0 to 1'),
    'frozen_stages': (_is_int, 'an integer'),
    'frozen': (_is_bool, 'True or False'),
    'always_trainable': (
        _is_list_of(lambda item: isinstance(item, str)),
        'a list of patterns of names of submodules',
    ),
    'norm_eval': (_is_bool, 'True or False'),
}


def _check_types(policy: FreezePolicy, label: str) -> None:
    for setting, (is_right, allowed) in _TYPES.items():
        value = getattr(policy, setting)
        is_absent = value is None and setting in _LAYER_SETTINGS
        if not is_absent and not is_right(value):
            raise ValueError(f'{label}: {setting} {value!r} must be {allowed}')


def _indices_from_input(setting: str, indices: Sequence[int], count: int, label: str) -> set[int]:
    """Indices of layers counted from the input.

    Raises:
        ValueError: there is no such layer.
    """
    wrong = [index for index in indices if not -count <= index < count]
    if wrong:
        raise ValueError(
            f'{label}: {setting} {", ".join(map(str, wrong))} out of range: it has {count} layers, '
            f'0 to {count - 1} from the input on or -1 to -{count} from the output'
        )
    return {index % count for index in indices}


def _check_stage(stage: int, layers: Layers, label: str) -> None:
    count = len(layers.layers)
    if stage == 0 and not layers.stem:
        problem = 'freezes the stem, but there is none'
    elif not -1 <= stage <= count:
        problem = f'is not in -1 to {count}'
    else:
        return
    stem, and_stem = ('0 the stem, ', 'the stem and ') if layers.stem else ('', '')
    raise ValueError(
        f'{label}: frozen_stages {stage} {problem}: -1 freezes nothing, {stem}'
        f'n {and_stem}the first n of {count} layers'
    )


def _check_no_contradiction(chosen: Mapping[str, set[int]], layers: Layers, label: str) -> None:
    if not {'unfreeze_layers', 'freeze_layers'} <= set(chosen):
        return
    shared = sorted(chosen['freeze_layers'] - chosen['unfreeze_layers'])
    if shared:
        raise ValueError(
            f'{label}: freeze_layers and unfreeze_layers share {", ".join(map(str, shared))} '
            f'of 0 to {len(layers.layers) - 1}: a layer can be in one of them only'
        )


def _log(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
