"""Learning rates by module: every key must match, and what is frozen stays out of the optimizer."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Real
from typing import NamedTuple

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from .layers import Layers, classes_with_layers, find_layers, is_within

DEFAULT_GROUP = 'default'

# What a module is called elsewhere -> its names in CMT, which no likeness of spelling would find.
_CONFUSIONS = {'query_embed': ('bev_embedding', 'rv_embedding')}


@dataclass(frozen=True, kw_only=True)
class KeyOptions:
    """What one entry of ``custom_keys`` sets for the parameters it matches.

    Attributes:
        lr_mult: multiplies the optimizer's ``lr``.
        decay_mult: multiplies the optimizer's ``weight_decay``.
        layer_decay: for a key that names a module with ordered layers: the last layer, and what
            comes after it, gets ``lr_mult``, every layer before it this share of the next one, and
            the stem this share of layer 0 (Clark et al., ELECTRA, ICLR 2020).

    Raises:
        ValueError: a multiplier is not a finite number from 0 on, or ``layer_decay`` not one
            greater than 0 and up to 1.
    """

    lr_mult: float = 1.0
    decay_mult: float = 1.0
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        for name in ('lr_mult', 'decay_mult'):
            value = getattr(self, name)
            if not _is_number(value) or value < 0:
                raise ValueError(f'{name} is {value!r}; it must be a finite number, 0 or greater')
        decay = self.layer_decay
        if decay is not None and not (_is_number(decay) and 0 < decay <= 1):
            raise ValueError(
                f'layer_decay is {decay!r}; it must be a number greater than 0 and up to 1'
            )


class Setting(NamedTuple):
    """The group of a parameter, and what it multiplies the optimizer's ``lr`` and decay by."""

    key: str
    group: str
    lr_mult: float
    decay_mult: float


# Registered with mmengine rather than MMDetection3D, whose registry falls back on mmengine's, so
# that a Runner finds it in any scope.
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StrictOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Build the optimizer from groups of trainable parameters, with a rate for each key.

    ``paramwise_cfg=dict(custom_keys={'img_neck': dict(lr_mult=0.05, decay_mult=1.0)})`` as in
    mmengine, but:

    - A key matches whole dotted components anywhere in a parameter's name: ``transformer`` matches
      ``pts_bbox_head.transformer.norm.weight``, not ``foo_transformer.weight``. The key of most
      components wins, among those the longest, then the alphabet.
    - A key without an effect is an error: one that matches nothing, or only what longer keys take.
      One that names a module without parameters, or with frozen ones only, is logged.
    - Frozen parameters, those with ``requires_grad=False``, are never in a group.
    - There is one group a key, or a layer where layers have rates of their own, and one for the
      rest, each with its ``name`` and ``lr_mult``. ``default`` comes first and the others follow by
      key, however the config orders them: few groups keep optimizers fast, and a fixed order keeps
      their state right on resume.
    - ``img_backbone=dict(lr_mult=0.01, layer_decay=0.7)`` sets rates by layer, see
      :class:`KeyOptions`.

    Args:
        optim_wrapper_cfg: of the wrapper, with ``optimizer``, whose ``lr`` must be given.
        paramwise_cfg: nothing but ``custom_keys``.

    Raises:
        ValueError: an unknown option, or a value out of its range.
    """

    def _validate_cfg(self) -> None:
        """Called by the base class; reads the options of every key."""
        _reject_exclude_frozen(self.optim_wrapper_cfg, 'optim_wrapper')
        _reject_exclude_frozen(self.optimizer_cfg, 'optim_wrapper.optimizer')
        _reject_exclude_frozen(self.paramwise_cfg, 'paramwise_cfg')
        _check_mapping(self.paramwise_cfg, 'paramwise_cfg', allowed=('custom_keys',))
        if not _is_number(self.base_lr) or self.base_lr <= 0:
            raise ValueError(
                f'optimizer.lr is {self.base_lr!r}; it must be given as a number greater than 0, '
                'because every lr_mult multiplies it'
            )
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        self.custom_keys = _read_custom_keys(custom_keys, decays=self.base_wd is not None)
        # Without any entry the base class would give the optimizer all parameters, frozen or not.
        self.paramwise_cfg = {'custom_keys': custom_keys}

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper and log its groups in one table.

        Raises:
            ValueError: nothing is trainable; a key has no effect; a multiplier of 0 on what is
                not frozen.
        """
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
        """Called by the base class: add the groups of ``module``, the whole model."""
        params.extend(self.groups(module))

    def groups(self, model: nn.Module) -> list[dict]:
        """Parameter groups of what is trainable now; see :meth:`__call__` for the errors."""
        members = defaultdict(list)
        for name, setting in self.settings(model).items():
            parameter = model.get_parameter(name)
            if parameter.requires_grad:
                members[setting].append(parameter)
        if not members:
            raise ValueError(
                f'every parameter of {type(model).__name__} is frozen: there is nothing to train'
            )
        return [self._group(setting, members[setting]) for setting in sorted(members, key=_order)]

    def settings(self, model: nn.Module) -> dict[str, Setting]:
        """Setting of every parameter by name, of frozen ones too, in the model's order.

        A parameter that several modules share is listed, and trained, once, by its first name; a
        key may match any of its names.

        Raises:
            ValueError: as :meth:`__call__`, but for a model in which nothing is trainable.
        """
        aliases = _aliases(model)
        keys = {names[0]: _matching_keys(names, self.custom_keys) for names in aliases.values()}
        _check_keys_apply(self.custom_keys, keys, model)
        trainable = {names[0] for parameter, names in aliases.items() if parameter.requires_grad}
        _check_keys_train(self.custom_keys, keys, trainable)
        encoders = {
            key: _Encoder.named(key, model)
            for key, options in self.custom_keys.items()
            if options.layer_decay is not None
        }
        return {
            names[0]: self._setting(names, keys[names[0]], encoders) for names in aliases.values()
        }

    def _setting(
        self, names: Sequence[str], matching: Sequence[str], encoders: Mapping[str, '_Encoder']
    ) -> Setting:
        if not matching:
            return Setting(DEFAULT_GROUP, DEFAULT_GROUP, 1.0, 1.0)
        key = matching[0]
        options = self.custom_keys[key]
        if key not in encoders:
            return Setting(key, key, options.lr_mult, options.decay_mult)
        layer, distance = encoders[key].place(names)
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
    """A module with ordered layers, and its name in the model."""

    path: str
    layers: Layers

    @classmethod
    def named(cls, key: str, model: nn.Module) -> '_Encoder':
        """The module that ``key`` names.

        Raises:
            ValueError: it names none, or several, or one whose layers are not known.
        """
        modules = {
            name: module for name, module in model.named_modules() if f'.{name}'.endswith(f'.{key}')
        }
        if len(modules) != 1:
            raise ValueError(
                f'custom_keys[{key!r}]: layer_decay needs the name of one module; the key names '
                f'{sorted(modules) or "none"}'
            )
        ((path, module),) = modules.items()
        layers = find_layers(module)
        if layers is None:
            raise ValueError(
                f'custom_keys[{key!r}]: layer_decay needs ordered layers, but those of '
                f'{type(module).__name__} are not known; they are known of '
                f'{", ".join(classes_with_layers())}; add others with register_layers'
            )
        return cls(path, layers)

    def place(self, names: Sequence[str]) -> tuple[str, int]:
        """Layer of a parameter, and how far that is from the last one."""
        within = [name.removeprefix(f'{self.path}.') for name in names]
        count = len(self.layers.layers)
        for index, roots in enumerate([self.layers.stem, *self.layers.layers]):
            if any(is_within(name, roots) for name in within):
                return ('stem' if index == 0 else f'layer {index - 1}'), count - index
        return f'layer {count - 1}', 0


def _order(setting: Setting) -> tuple:
    """Of groups: the default one, then by key, and from the stem to the last layer."""
    return setting.key != DEFAULT_GROUP, setting.key, setting.lr_mult, setting.group


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _reject_exclude_frozen(config: object, where: str) -> None:
    if not isinstance(config, Mapping):
        return
    for name, value in config.items():
        if name == 'exclude_frozen_parameters':
            raise ValueError(
                f'{where} sets exclude_frozen_parameters={value!r}; remove it: '
                'StrictOptimWrapperConstructor always leaves frozen parameters out'
            )
        _reject_exclude_frozen(value, f'{where}.{name}')


def _check_mapping(config: object, where: str, *, allowed: Sequence[str] | None = None) -> None:
    if not isinstance(config, Mapping):
        raise ValueError(f'{where} is {config!r}; it must be a dict')
    unknown = [] if allowed is None else [name for name in config if name not in allowed]
    if unknown:
        raise ValueError(f'{where} has unknown options {unknown}; allowed: {", ".join(allowed)}')


def _read_custom_keys(custom_keys: object, *, decays: bool) -> dict[str, KeyOptions]:
    """Options of each key; the key that wins over the others comes first."""
    _check_mapping(custom_keys, 'custom_keys')
    if DEFAULT_GROUP in custom_keys:
        raise ValueError(
            f'custom_keys: {DEFAULT_GROUP!r} is what the group of all unmatched parameters is '
            'called; write the key with its parent'
        )
    options = {}
    for key in sorted(custom_keys, key=lambda key: (-key.count('.'), -len(key), key)):
        where = f'custom_keys[{key!r}]'
        _check_mapping(
            custom_keys[key], where, allowed=[field.name for field in fields(KeyOptions)]
        )
        if 'decay_mult' in custom_keys[key] and not decays:
            raise ValueError(
                f'{where} sets decay_mult, but the optimizer has no weight_decay to multiply'
            )
        try:
            options[key] = KeyOptions(**custom_keys[key])
        except ValueError as error:
            raise ValueError(f'{where}: {error}') from None
    return options


def _aliases(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """All names of each parameter."""
    aliases = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases[parameter].append(name)
    return aliases


def _matching_keys(names: Sequence[str], keys: Mapping[str, KeyOptions]) -> list[str]:
    """Keys that match one of the names of a parameter, the one that wins first."""
    return [key for key in keys if any(_holds(name, key) for name in names)]


def _holds(name: str, key: str) -> bool:
    """Whether a dotted name holds all components of ``key`` in a row."""
    return f'.{key}.' in f'.{name}.'


def _check_keys_apply(
    options: Mapping[str, KeyOptions], keys: Mapping[str, Sequence[str]], model: nn.Module
) -> None:
    """Every key must decide on a parameter, or name what has none, or what longer keys refine."""
    known = [name for name, _ in model.named_modules()] + _without_parameter(model)
    unmatched = []
    for key in options:
        winners = {name: matching[0] for name, matching in keys.items() if key in matching}
        if key in winners.values():
            continue
        if winners:
            _check_refined(key, winners)
        elif any(_holds(name, key) for name in known):
            print_log(f'custom_keys: {key!r} has no parameters', logger='current')
        else:
            unmatched.append(key)
    if unmatched:
        _raise_unmatched(unmatched, model)


def _without_parameter(model: nn.Module) -> list[str]:
    """What may be a parameter, but is a buffer or left out (``None``) as its module is configured.

    So one recipe serves all options of a module.
    """
    left_out = [
        f'{prefix}.{name}'.removeprefix('.')
        for prefix, module in model.named_modules()
        for name, parameter in module._parameters.items()
        if parameter is None
    ]
    return left_out + [name for name, _ in model.named_buffers()]


def _check_refined(key: str, winners: Mapping[str, str]) -> None:
    """Other keys may take every parameter of ``key`` if they name parts of it."""
    rivals = sorted(set(winners.values()))
    if not all(_holds(rival, key) for rival in rivals):
        name = next(iter(winners))
        path = name[: f'.{name}.'.index(f'.{key}.') + len(key)]
        raise ValueError(
            f'custom_keys: {key!r} has no effect, because the longer {rivals} take all that it '
            f'matches; to let it win, write it with its parents, as {path!r}'
        )
    print_log(f'custom_keys: {key!r} is left with nothing by {rivals}', logger='current')


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
    """Parts of the model's names, of as many components as ``key``, that it may stand for."""
    parts = {part for name in names for part in _windows(name, size=key.count('.') + 1)}
    known = _CONFUSIONS.get(key.rpartition('.')[2], ())
    components = {component for name in names for component in name.split('.')}
    if any(name in components for name in known):
        return [name for name in known if name in components]
    # mmengine's keys are substrings, so a part that holds the key is likely meant.
    holding = sorted(part for part in parts if key and key in part)
    close = get_close_matches(key, sorted(parts), n=3)
    return list(dict.fromkeys([*close, *holding]))[:5]


def _windows(name: str, *, size: int) -> Iterator[str]:
    components = name.split('.')
    for start in range(len(components) - size + 1):
        yield '.'.join(components[start : start + size])


def _check_keys_train(
    options: Mapping[str, KeyOptions], keys: Mapping[str, Sequence[str]], trainable: set[str]
) -> None:
    """Log keys of frozen parameters; a multiplier of 0 is for those alone."""
    members = defaultdict(list)
    for name, matching in keys.items():
        if matching:
            members[matching[0]].append(name)
    for key, names in members.items():
        training = [name for name in names if name in trainable]
        if not training:
            print_log(
                f'custom_keys: {key!r} waits, all its {len(names)} parameters are frozen',
                logger='current',
            )
        elif options[key].lr_mult == 0:
            raise ValueError(
                f'custom_keys[{key!r}]: lr_mult is 0, but {len(training)} of its parameters are '
                f'not frozen, {training[0]} for one: they would look frozen, still pay for '
                "gradients, and their norms' statistics would drift. Freeze the module in the "
                "model's config, or give it a rate"
            )


def _table(groups: Sequence[Mapping]) -> str:
    width = max(len(group['name']) for group in groups)
    lines = [f'{"group":<{width}}  {"tensors":>7}  {"parameters":>11}  {"lr":>9}  {"decay":>9}']
    for group in groups:
        count = sum(parameter.numel() for parameter in group['params'])
        lines.append(
            f'{group["name"]:<{width}}  {len(group["params"]):>7}  {count:>11,}  '
            f'{group["lr"]:>9.3g}  {group.get("weight_decay", 0):>9.3g}'
        )
    return 'Parameter groups, before any schedule:\n' + '\n'.join(lines)
