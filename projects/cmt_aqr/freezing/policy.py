"""What of a module is frozen, and how it stays so.

Frozen means: no gradient, and evaluation mode through every ``train()``, so that the running
statistics of norms stand still too. ``requires_grad=False`` alone does not do that.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import Registry
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .layers import Layers, classes_with_layers, find_layers, has_known_layers, is_within


@dataclasses.dataclass(frozen=True, kw_only=True)
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


_LAYER_SETTINGS = ('unfreeze_layers', 'freeze_layers', 'freeze_ratio', 'frozen_stages')


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
    label = f'{name} ({type(module).__name__})' if name else type(module).__name__
    _check_types(policy, label)
    own_stages = _own_frozen_stages(module)
    if own_stages is not None and not _settings(policy):
        policy = dataclasses.replace(policy, frozen_stages=own_stages)
    keeper = _Keeper(
        module,
        frozen=_frozen_roots(module, policy, label),
        trainable=_matching_submodules(module, policy.always_trainable, label),
        norm_eval=policy.norm_eval or getattr(module, 'norm_eval', False),
    )
    if own_stages is not None:
        _check_own_stages(module, own_stages, keeper, label)

    earlier = vars(module).get('train')
    if isinstance(earlier, _Keeper):
        earlier.release()
    keeper.take_hold()
    return module


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


def frozen_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every submodule of ``model`` that a policy keeps frozen, by its full dotted name.

    The policy speaks for a submodule's own parameters and buffers (``recurse=False``); those of its
    children only if they are in the answer themselves, for they may be `always_trainable`.
    """
    return {
        _join(prefix, name): module
        for prefix, keeper in _keepers(model)
        for name, module in keeper.frozen_modules().items()
    }


def eval_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Every norm that a `norm_eval` keeps in evaluation mode, by its full dotted name.

    Besides policies this counts the ``norm_eval`` of classes that have their own, as mmdet's
    ResNet. Norms that are frozen without `norm_eval` are not in the answer.
    """
    owners = {prefix: keeper.module for prefix, keeper in _keepers(model) if keeper.norm_eval}
    for prefix, module in model.named_modules():
        if getattr(module, 'norm_eval', False) is True:
            owners[prefix] = module
    return {
        _join(prefix, name): norm
        for prefix, module in owners.items()
        for name, norm in _norms(module).items()
    }


class _Keeper:
    """Stands in for ``module.train`` and puts what is frozen back into evaluation mode.

    It holds names, not submodules: a submodule may be replaced later, as by the conversion to
    synchronised norms. Being a plain attribute, it is copied and pickled with its module.

    Args:
        module: the module to keep.
        frozen: names of the frozen submodules and parameters, with all that lies below; '' is the
            module itself.
        trainable: names of the submodules that are excepted, with all that lies below.
        norm_eval: keep the norms in evaluation mode too.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        frozen: tuple[str, ...],
        trainable: tuple[str, ...],
        norm_eval: bool,
    ) -> None:
        self.module = module
        self.frozen = frozen
        self.trainable = trainable
        self.norm_eval = norm_eval
        self.mode = module.training
        self.taken_gradients: list[str] = []

    def __call__(self, mode: bool = True) -> nn.Module:
        """Do what ``module.train(mode)`` does, but for what is frozen."""
        type(self.module).train(self.module, mode)
        self.mode = mode
        self._set_evaluation()
        return self.module

    def take_hold(self) -> None:
        """Freeze the module, from now on and through every ``train()``."""
        if not self.frozen and not self.norm_eval:
            return
        self.mode = self.module.training
        for name, parameter in self.module.named_parameters():
            if self._is_frozen(name) and parameter.requires_grad:
                parameter.requires_grad_(False)
                parameter.grad = None  # an optimizer would take one more step with it
                self.taken_gradients.append(name)
        self.module.train = self
        self._set_evaluation()

    def release(self) -> None:
        """Undo :meth:`take_hold`."""
        for name in self.taken_gradients:
            self.module.get_parameter(name).requires_grad_(True)
        del self.module.train
        self.module.train(self.mode)

    def frozen_modules(self) -> dict[str, nn.Module]:
        """The frozen submodules by their names within the module."""
        return {n: module for n, module in self.module.named_modules() if self._is_frozen(n)}

    def frozen_parameters(self) -> set[str]:
        """Names of the frozen parameters within the module."""
        return {name for name, _ in self.module.named_parameters() if self._is_frozen(name)}

    def _is_frozen(self, name: str) -> bool:
        return is_within(name, self.frozen) and not is_within(name, self.trainable)

    def _set_evaluation(self) -> None:
        for module in self.frozen_modules().values():
            module.training = False
        if self.norm_eval:
            for norm in _norms(self.module).values():
                norm.training = False


def _keepers(model: nn.Module) -> Iterable[tuple[str, _Keeper]]:
    for name, module in model.named_modules():
        keeper = vars(module).get('train')
        if isinstance(keeper, _Keeper):
            yield name, keeper


def _norms(module: nn.Module) -> dict[str, nn.Module]:
    """Submodules that behave otherwise in training because of their running statistics."""
    return {
        name: norm
        for name, norm in module.named_modules()
        if isinstance(norm, _BatchNorm)
        or (isinstance(norm, _InstanceNorm) and norm.track_running_stats)
    }


def _join(prefix: str, name: str) -> str:
    return '.'.join(part for part in (prefix, name) if part)


# From settings to names.


def _settings(policy: FreezePolicy) -> list[str]:
    """The settings of the policy that choose what is frozen, the strongest first."""
    given = [setting for setting in _LAYER_SETTINGS if getattr(policy, setting) is not None]
    return [*given, 'frozen'] if policy.frozen else given


def _frozen_roots(module: nn.Module, policy: FreezePolicy, label: str) -> tuple[str, ...]:
    """Names of what is frozen within ``module``; a name stands for all that lies below it."""
    given = _settings(policy)
    if given in ([], ['frozen']):
        if given and next(module.parameters(), None) is None:
            _log(f'{label} is frozen, but has no parameters')
        return ('',) if given else ()
    layers = find_layers(module)
    if layers is None:
        raise ValueError(
            f'{label}: {given[0]} {getattr(policy, given[0])!r} needs layers, and those of '
            f'{type(module).__name__} are not known; use frozen=True, or name its layers with '
            'projects.cmt_aqr.freezing.register_layers; known are '
            f'{", ".join(classes_with_layers())}'
        )
    chosen = {
        setting: _chosen_layers(setting, getattr(policy, setting), layers, label)
        for setting in given
        if setting != 'frozen'
    }
    _check_no_contradiction(chosen, len(layers.layers), label)
    if given[1:]:
        ignored = ', '.join(f'{setting} {getattr(policy, setting)!r}' for setting in given[1:])
        _log(f'{label}: {given[0]} {getattr(policy, given[0])!r} wins, ignored: {ignored}')
    return _roots(given[0], getattr(policy, given[0]), chosen[given[0]], layers)


def _chosen_layers(setting: str, value: Any, layers: Layers, label: str) -> set[int]:
    """Indices of the layers that one setting freezes.

    Raises:
        ValueError: the value names a layer or stage that does not exist.
    """
    count = len(layers.layers)
    if setting == 'freeze_layers':
        return _positive_indices(setting, value, count, label)
    if setting == 'unfreeze_layers':
        return set(range(count)) - _positive_indices(setting, value, count, label)
    if setting == 'freeze_ratio':
        # A share such as 0.29 of 100 is 28.999... as a float.
        frozen = math.floor(value * count + 1e-9)
        if value > 0 and frozen == 0:
            _log(f'{label}: freeze_ratio {value!r} of {count} layers is less than one: none frozen')
        return set(range(frozen))
    _check_stage(value, layers, label)
    return set(range(max(value, 0)))


def _roots(setting: str, value: Any, frozen: set[int], layers: Layers) -> tuple[str, ...]:
    if len(frozen) == len(layers.layers):
        return ('',)
    stem_too = frozen or setting == 'unfreeze_layers' or (setting, value) == ('frozen_stages', 0)
    names = [name for i in sorted(frozen) for name in layers.layers[i]]
    return (*layers.stem, *names) if stem_too else ()


def _matching_submodules(module: nn.Module, patterns: Sequence[str], label: str) -> tuple[str, ...]:
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


def _own_frozen_stages(module: nn.Module) -> int | None:
    """The number that the class was given for itself, if it freezes anything."""
    own = getattr(module, 'frozen_stages', None)
    return own if _is_int(own) and own >= 0 and find_layers(module) is not None else None


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


def _positive_indices(setting: str, indices: Sequence[int], count: int, label: str) -> set[int]:
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


def _check_no_contradiction(chosen: Mapping[str, set[int]], count: int, label: str) -> None:
    if not {'unfreeze_layers', 'freeze_layers'} <= set(chosen):
        return
    shared = chosen['freeze_layers'] - chosen['unfreeze_layers']
    if shared:
        raise ValueError(
            f'{label}: freeze_layers and unfreeze_layers share '
            f'{", ".join(map(str, sorted(shared)))} (of {count} layers, from 0): name a layer in '
            'one of them'
        )


def _check_own_stages(module: nn.Module, own_stages: int, keeper: _Keeper, label: str) -> None:
    """Refuse to let train what the class itself freezes again in each of its ``train()``."""
    policy = FreezePolicy(frozen_stages=own_stages)
    own = _Keeper(
        module, frozen=_frozen_roots(module, policy, label), trainable=(), norm_eval=False
    )
    if own.frozen_parameters() - keeper.frozen_parameters():
        raise ValueError(
            f'{label} was built with its own frozen_stages {own_stages} and freezes these at every '
            'train(), so no policy can let any of them train: build it with frozen_stages=-1'
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


def _log(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
