"""Optimizer constructor with learning rates by module, in which every key must match."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Real
from typing import NamedTuple

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from ..markdown import align
from .layers import Layers, classes_with_layers, find_layers
from .names import is_within

DEFAULT_GROUP = 'default'

# Names used elsewhere -> names in CMT, for which spelling gives no hint.
_CONFUSIONS = {'query_embed': ('bev_embedding', 'rv_embedding')}


@dataclass(frozen=True, kw_only=True)
class KeyOptions:
    """Options of one entry of ``custom_keys``."""

    lr_mult: float = 1.0
    """factor of the optimizer's ``lr``"""
    decay_mult: float = 1.0
    """factor of the optimizer's ``weight_decay``"""
    layer_decay: float | None = None
    """factor between the rates of successive layers, for a key that names a module with ordered
    layers: the last layer and whatever follows it get ``lr_mult``, every other layer and the stem
    ``layer_decay`` times the rate of the next one (Clark et al., ELECTRA, ICLR 2020)"""

    def __post_init__(self) -> None:
        for name in ('lr_mult', 'decay_mult'):
            value = getattr(self, name)
            if not _is_number(value) or value < 0:
                raise ValueError(f'{name} is {value!r}; it must be a finite number, 0 or greater')
        decay = self.layer_decay
        if decay is not None and not (_is_number(decay) and 0 < decay <= 1):
            raise ValueError(
                f'layer_decay is {decay!r}; it must be a number greater than 0 and at most 1'
            )


class Setting(NamedTuple):
    """The key and group of a parameter, and its multipliers."""

    key: str
    group: str
    lr_mult: float
    decay_mult: float


# Registered with mmengine, which MMDetection3D's registry falls back on, so that a Runner finds it
# in any scope.
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StrictOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Builds an optimizer for the trainable parameters, with one group for each key.

    ``paramwise_cfg=dict(custom_keys={'img_neck': dict(lr_mult=0.05, decay_mult=1.0)})`` works as in
    mmengine, with these differences:

    - A key matches whole dotted components anywhere in a parameter's name: ``transformer`` matches
      ``pts_bbox_head.transformer.norm.weight``, but not ``foo_transformer.weight``. Of several
      matching keys, the one with the most components applies, then the longest, then the first in
      the alphabet.
    - A key without effect is an error: one that matches nothing, or only parameters of longer keys.
      A key for a module without parameters, or with frozen ones only, is logged.
    - Frozen parameters, those with ``requires_grad=False``, are in no group.
    - Every key has one group, or one per layer with `layer_decay`; all other parameters form the
      group ``default``. Groups have a ``name`` and an ``lr_mult``. Their order, ``default`` first
      and then by key, does not depend on the config, so that a resumed optimizer state fits. Having
      few groups keeps optimizers fast.
    - ``img_backbone=dict(lr_mult=0.01, layer_decay=0.7)`` sets rates by layer, see
      :class:`KeyOptions`.

    Args:
        optim_wrapper_cfg: config of the wrapper, whose ``optimizer`` must have an ``lr``.
        paramwise_cfg: ``custom_keys`` and nothing else.

    Raises:
        ValueError: an option is unknown or out of range; or, for a model, no parameter is
            trainable, a key has no effect, or a trainable parameter has a multiplier of 0.
    """

    def _validate_cfg(self) -> None:
        """Read the options of every key; called by the base class."""
        _check_mapping(self.paramwise_cfg, 'paramwise_cfg', allowed=('custom_keys',))
        if not _is_number(self.base_lr) or self.base_lr <= 0:
            raise ValueError(
                f'optimizer.lr is {self.base_lr!r}; it must be a number greater than 0, because '
                'every lr_mult multiplies it'
            )
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        self.custom_keys = _read_custom_keys(custom_keys, has_decay=self.base_wd is not None)
        # If this were empty, the base class would optimize all parameters, even frozen ones.
        self.paramwise_cfg = {'custom_keys': custom_keys}

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper and log a table of its groups."""
        optim_wrapper = super().__call__(model)
        print_log(_table(optim_wrapper.optimizer.param_groups), logger='current')
        return optim_wrapper

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Append the groups of ``module``, the whole model; called by the base class."""
        members = defaultdict(list)
        for name, setting in self.settings(module).items():
            parameter = module.get_parameter(name)
            if parameter.requires_grad:
                members[setting].append(parameter)
        if not members:
            raise ValueError(
                f'every parameter of {type(module).__name__} is frozen: there is nothing to train'
            )
        # The default group, then by key, from the stem to the last layer.
        for setting in sorted(members, key=lambda s: (s.key != DEFAULT_GROUP, s.key, s.lr_mult)):
            params.append(self._group(setting, members[setting]))

    def settings(self, model: nn.Module) -> dict[str, Setting]:
        """Setting of every parameter by name, including frozen ones, in the model's order.

        A parameter shared by several modules is listed and trained once, under its first name; a
        key may match any of its names.
        """
        aliases: dict[nn.Parameter, list[str]] = defaultdict(list)
        for name, parameter in model.named_parameters(remove_duplicate=False):
            aliases[parameter].append(name)
        keys = {
            names[0]: [key for key in self.custom_keys if any(_contains(n, key) for n in names)]
            for names in aliases.values()
        }
        _check_keys_apply(self.custom_keys, keys, model)
        trainable = {names[0] for parameter, names in aliases.items() if parameter.requires_grad}
        _check_keys_train(self.custom_keys, keys, trainable)
        encoders = {
            key: _find_encoder(key, model)
            for key, options in self.custom_keys.items()
            if options.layer_decay is not None
        }
        return {
            names[0]: self._setting(names, keys[names[0]], encoders) for names in aliases.values()
        }

    def _setting(
        self, names: Sequence[str], matching: Sequence[str], encoders: Mapping[str, _Encoder]
    ) -> Setting:
        if not matching:
            return Setting(DEFAULT_GROUP, DEFAULT_GROUP, 1.0, 1.0)
        key = matching[0]
        options = self.custom_keys[key]
        if key not in encoders:
            return Setting(key, key, options.lr_mult, options.decay_mult)
        layer, distance = encoders[key].locate(names)
        lr_mult = options.lr_mult * options.layer_decay**distance
        return Setting(key, f'{key} {layer}', lr_mult, options.decay_mult)

    def _group(self, setting: Setting, parameters: list[nn.Parameter]) -> dict:
        group = {
            'params': parameters,
            'name': setting.group,
            'lr': self.base_lr * setting.lr_mult,
            'lr_mult': setting.lr_mult,
        }
        if self.base_wd is not None:
            group['weight_decay'] = self.base_wd * setting.decay_mult
        return group


class _Encoder(NamedTuple):
    """A module with ordered layers and its name in the model."""

    path: str
    layers: Layers

    def locate(self, names: Sequence[str]) -> tuple[str, int]:
        """Layer of a parameter and its distance to the last layer."""
        within = [name.removeprefix(f'{self.path}.') for name in names]
        count = len(self.layers.layers)
        for index, roots in enumerate([self.layers.stem, *self.layers.layers]):
            if any(is_within(name, roots) for name in within):
                return ('stem' if index == 0 else f'layer {index - 1}'), count - index
        return f'layer {count - 1}', 0


def _find_encoder(key: str, model: nn.Module) -> _Encoder:
    """The module that ``key`` names; an error if it names none, several or one without layers."""
    found = {n: module for n, module in model.named_modules() if f'.{n}'.endswith(f'.{key}')}
    if len(found) != 1:
        raise ValueError(
            f'custom_keys[{key!r}]: layer_decay needs a key that names one module; this key names '
            f'{sorted(found) or "none"}'
        )
    ((path, module),) = found.items()
    layers = find_layers(module)
    if layers is None:
        raise ValueError(
            f'custom_keys[{key!r}]: layer_decay needs ordered layers, which are unknown for '
            f'{type(module).__name__}; register them with projects.cmt_aqr.freezing.register_layers'
            f' (known: {", ".join(classes_with_layers())})'
        )
    return _Encoder(path, layers)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


# Reading the config.


def _check_mapping(config: object, where: str, *, allowed: Sequence[str] | None = None) -> None:
    if not isinstance(config, Mapping):
        raise ValueError(f'{where} is {config!r}; it must be a dict')
    unknown = [] if allowed is None else [name for name in config if name not in allowed]
    if unknown:
        raise ValueError(f'{where} has unknown options {unknown}; allowed: {", ".join(allowed)}')


def _read_custom_keys(custom_keys: object, *, has_decay: bool) -> dict[str, KeyOptions]:
    """Options of each key, ordered by precedence."""
    _check_mapping(custom_keys, 'custom_keys')
    if DEFAULT_GROUP in custom_keys:
        raise ValueError(
            f'custom_keys: {DEFAULT_GROUP!r} is the name of the group of all unmatched parameters; '
            'write the key with its parent'
        )
    options = {}
    allowed = [field.name for field in fields(KeyOptions)]
    for key in sorted(custom_keys, key=lambda key: (-key.count('.'), -len(key), key)):
        where = f'custom_keys[{key!r}]'
        _check_mapping(custom_keys[key], where, allowed=allowed)
        if 'decay_mult' in custom_keys[key] and not has_decay:
            raise ValueError(
                f'{where} sets decay_mult, but the optimizer has no weight_decay to multiply'
            )
        try:
            options[key] = KeyOptions(**custom_keys[key])
        except ValueError as error:
            raise ValueError(f'{where}: {error}') from None
    return options


# Matching keys with parameters.


def _contains(name: str, key: str) -> bool:
    """Whether all components of ``key`` occur consecutively in a dotted name."""
    return f'.{key}.' in f'.{name}.'


def _check_keys_apply(
    options: Mapping[str, KeyOptions], keys: Mapping[str, Sequence[str]], model: nn.Module
) -> None:
    """Every key must apply to a parameter, to a module without any, or be refined by longer keys.

    ``keys`` are the matching keys of each parameter, by precedence.
    """
    known = [name for name, _ in model.named_modules()] + _possible_parameters(model)
    unmatched = []
    for key in options:
        winners = {name: matching[0] for name, matching in keys.items() if key in matching}
        if key in winners.values():
            continue
        if winners:
            _check_refined(key, winners)
        elif any(_contains(name, key) for name in known):
            print_log(f'custom_keys: {key!r} has no parameters', logger='current')
        else:
            unmatched.append(key)
    if unmatched:
        _raise_unmatched(unmatched, model)


def _possible_parameters(model: nn.Module) -> list[str]:
    """Names that another config of the same modules makes parameters: buffers, and ``None``.

    A recipe with a key for them serves all configs.
    """
    absent = [
        f'{prefix}.{name}'.removeprefix('.')
        for prefix, module in model.named_modules()
        for name, parameter in module._parameters.items()
        if parameter is None
    ]
    return absent + [name for name, _ in model.named_buffers()]


def _check_refined(key: str, winners: Mapping[str, str]) -> None:
    """Longer keys may take all parameters of ``key`` only if they name parts of it."""
    rivals = sorted(set(winners.values()))
    if not all(_contains(rival, key) for rival in rivals):
        name = next(iter(winners))
        path = name[: f'.{name}.'.index(f'.{key}.') + len(key)]
        raise ValueError(
            f'custom_keys: {key!r} has no effect, because the longer keys {rivals} take all its '
            f'parameters; to give it precedence, write it with its parents, as {path!r}'
        )
    print_log(f'custom_keys: {rivals} take all parameters of {key!r}', logger='current')


def _raise_unmatched(unmatched: Sequence[str], model: nn.Module) -> None:
    names = [name for name, _ in model.named_modules()]
    names += [name for name, _ in model.named_parameters()]
    lines = []
    for key in unmatched:
        near = _near_misses(key, names)
        hint = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
        lines.append(f'custom_keys: {key!r} matches no parameter{hint}')
    top_level = sorted({name.partition('.')[0] for name in names} - {''})
    raise ValueError(
        '\n'.join(lines)
        + '\nA key must name whole components of a dotted parameter name. Top-level modules: '
        + ', '.join(top_level)
    )


def _near_misses(key: str, names: Sequence[str]) -> list[str]:
    """Parts of the model's names with as many components as ``key`` that may have been meant."""
    components = [name.split('.') for name in names]
    known = _CONFUSIONS.get(key.rpartition('.')[2], ())
    found = [name for name in known if any(name in parts for parts in components)]
    if found:
        return found
    size = key.count('.') + 1
    parts = sorted(
        {
            '.'.join(split[start : start + size])
            for split in components
            for start in range(len(split) - size + 1)
        }
    )
    # mmengine's keys are substrings, so a part that contains the key was probably meant.
    containing = [part for part in parts if key and key in part]
    return list(dict.fromkeys([*get_close_matches(key, parts, n=3), *containing]))[:5]


def _check_keys_train(
    options: Mapping[str, KeyOptions], keys: Mapping[str, Sequence[str]], trainable: set[str]
) -> None:
    """Log keys of frozen parameters, and reject a multiplier of 0 for trainable ones."""
    for key in options:
        names = [name for name, matching in keys.items() if matching[:1] == [key]]
        training = [name for name in names if name in trainable]
        if names and not training:
            print_log(
                f'custom_keys: {key!r} has no effect yet, all its {len(names)} parameters are '
                'frozen',
                logger='current',
            )
        elif training and options[key].lr_mult == 0:
            raise ValueError(
                f'custom_keys[{key!r}]: lr_mult is 0, but {len(training)} of its parameters are '
                f'not frozen, for example {training[0]}: they would look frozen, but still compute '
                "gradients, and their norms' statistics would drift. Freeze the module in the "
                "model's config, or give it a rate"
            )


def _table(groups: Sequence[Mapping]) -> str:
    lines = [('group', 'tensors', 'parameters', 'lr', 'decay')]
    for group in groups:
        count = sum(parameter.numel() for parameter in group['params'])
        rates = f'{group["lr"]:.3g}', f'{group.get("weight_decay", 0):.3g}'
        lines.append((group['name'], str(len(group['params'])), f'{count:,}', *rates))
    return f'Parameter groups, before any schedule:\n{align(lines)}'
