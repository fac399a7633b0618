"""The ordered layers of a module, from its input to its output.

Layers are looked up by the name of the module's class or of a base class, so that classes which a
model does not use need not be imported. :func:`register_layers` adds further classes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .names import is_within


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Names of a module's submodules and parameters, sorted by layer."""

    layers: tuple[tuple[str, ...], ...]
    """names of each layer; layer 0 is nearest the input"""
    stem: tuple[str, ...] = ()
    """names before layer 0, such as a patch embedding"""
    rest: tuple[str, ...] = ()
    """names after the last layer, such as a final norm"""


Finder = Callable[[nn.Module], Layers | None]

_FINDERS: dict[str, Finder] = {}


def register_layers(*class_names: str) -> Callable[[Finder], Finder]:
    """Decorator that registers a function as the layer finder of these classes.

    The function receives a module of one of the classes or of a subclass, and returns its
    :class:`Layers`, or ``None`` if the module has no layers.

    Raises:
        ValueError: one of the classes already has a layer finder.
    """

    def register(find: Finder) -> Finder:
        taken = sorted(set(class_names) & set(_FINDERS))
        if taken:
            raise ValueError(f'the layers of {", ".join(taken)} are already registered')
        _FINDERS.update(dict.fromkeys(class_names, find))
        return find

    return register


def classes_with_layers() -> list[str]:
    """Names of the registered classes."""
    return sorted(_FINDERS)


def has_known_layers(cls: type) -> bool:
    """Whether ``cls`` or one of its base classes is registered."""
    return any(base.__name__ in _FINDERS for base in cls.__mro__)


def find_layers(module: nn.Module) -> Layers | None:
    """The layers of ``module``; ``None`` if they are unknown.

    Raises:
        ValueError: the layer finder omits parameters of the module, which a policy would then miss.
    """
    for base in type(module).__mro__:
        if base.__name__ in _FINDERS:
            found = _FINDERS[base.__name__](module)
            if found is not None:
                _check_complete(module, found)
            return found
    return None


def _check_complete(module: nn.Module, found: Layers) -> None:
    roots = (*found.stem, *found.rest, *(name for layer in found.layers for name in layer))
    missing = [name for name, _ in module.named_parameters() if not is_within(name, roots)]
    if missing:
        raise ValueError(
            f'the layers registered for {type(module).__name__} omit its parameters '
            f'{", ".join(missing)}: register its own class with register_layers'
        )


def _one_after_another(module: nn.Module, layers: list[str]) -> Layers:
    """Layers of one submodule each; the children before and after are the stem and the rest."""
    children = [name for name, _ in module.named_children()]
    first, last = (children.index(layers[i].split('.')[0]) for i in (0, -1))
    return Layers(
        layers=tuple((name,) for name in layers),
        stem=tuple(children[:first]),
        rest=tuple(children[last + 1 :]),
    )


@register_layers('ResNet')
def _resnet(module: nn.Module) -> Layers:
    """ResNets of mmdet and torchvision, with any kind of stem."""
    names = [name for name, _ in module.named_children() if re.fullmatch(r'layer\d+', name)]
    return _one_after_another(module, names)


@register_layers('VoVNet')
def _vovnet(module: nn.Module) -> Layers:
    return _one_after_another(module, module.stage_names)


@register_layers('SparseEncoder')
def _sparse_encoder(module: nn.Module) -> Layers:
    stages = [f'encoder_layers.{name}' for name, _ in module.encoder_layers.named_children()]
    return _one_after_another(module, [*stages, 'conv_out'])


@register_layers('SECOND')
def _second(module: nn.Module) -> Layers:
    return _one_after_another(module, [f'blocks.{i}' for i in range(len(module.blocks))])


@register_layers('SECONDFPN')
def _second_fpn(module: nn.Module) -> Layers:
    return _one_after_another(module, [f'deblocks.{i}' for i in range(len(module.deblocks))])


@register_layers('FPN')
def _fpn(module: nn.Module) -> Layers:
    """One layer per input level; extra levels, computed from the last one, are the rest."""
    levels, outputs = len(module.lateral_convs), len(module.fpn_convs)
    return Layers(
        layers=tuple((f'lateral_convs.{i}', f'fpn_convs.{i}') for i in range(levels)),
        rest=tuple(f'fpn_convs.{i}' for i in range(levels, outputs)),
    )


@register_layers('CmtTransformer')
def _cmt_transformer(module: nn.Module) -> Layers:
    layers = tuple((f'decoder.layers.{i}',) for i in range(len(module.layers)))
    return Layers(layers=layers, rest=('decoder.post_norm',))


@register_layers('PreTrainedModel')
def _transformers_encoder(module: nn.Module) -> Layers | None:
    """Vision transformers of the `transformers` package, such as DINOv2 and SigLIP."""
    modules = dict(module.named_modules())
    for stack in ('encoder.layer', 'encoder.layers', 'model.layer', 'layers'):
        if isinstance(modules.get(stack), nn.ModuleList):
            count = len(modules[stack])
            return _one_after_another(module, [f'{stack}.{i}' for i in range(count)])
    return None
