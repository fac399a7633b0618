"""Which submodules of a module are its layers, in order from the input to the output.

Layers are found by the name of the module's class or of one it derives from, so that nothing has to
be imported that the model does not use. Further classes are added with :func:`register_layers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Names, within a module, of its submodules and parameters.

    Attributes:
        layers: what makes up each layer; layer 0 is nearest the input.
        stem: what comes before layer 0, such as a patch embedding.
        rest: what comes after the last layer, such as a final norm.
    """

    layers: tuple[tuple[str, ...], ...]
    stem: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()


Finder = Callable[[nn.Module], Layers | None]

_FINDERS: dict[str, Finder] = {}


def register_layers(*class_names: str) -> Callable[[Finder], Finder]:
    """Register the decorated function as the one that finds the layers of classes.

    The function gets a module of one of these classes, or of one derived from it, and returns its
    :class:`Layers`, or ``None`` for a module that has none.

    Raises:
        ValueError: one of the names has such a function already.
    """

    def register(find: Finder) -> Finder:
        taken = sorted(set(class_names) & set(_FINDERS))
        if taken:
            raise ValueError(f'the layers of {", ".join(taken)} are registered already')
        _FINDERS.update(dict.fromkeys(class_names, find))
        return find

    return register


def classes_with_layers() -> list[str]:
    """Names of the classes whose layers are known."""
    return sorted(_FINDERS)


def has_known_layers(cls: type) -> bool:
    """Whether ``cls`` or a class that it derives from is registered."""
    return any(base.__name__ in _FINDERS for base in cls.__mro__)


def find_layers(module: nn.Module) -> Layers | None:
    """The layers of ``module``, or ``None`` where they are not known.

    Raises:
        ValueError: the registered function leaves out parameters of the module; freezing by its
            layers would pass them over.
    """
    for base in type(module).__mro__:
        if base.__name__ in _FINDERS:
            found = _FINDERS[base.__name__](module)
            if found is not None:
                _check_complete(module, found)
            return found
    return None


def is_within(name: str, roots: tuple[str, ...]) -> bool:
    """Whether the dotted ``name`` is one of ``roots`` or lies below one; '' is above all names."""
    return any(root in ('', name) or name.startswith(f'{root}.') for root in roots)


def _check_complete(module: nn.Module, found: Layers) -> None:
    roots = (*found.stem, *found.rest, *(name for layer in found.layers for name in layer))
    missing = [name for name, _ in module.named_parameters() if not is_within(name, roots)]
    if missing:
        raise ValueError(
            f'the layers registered for {type(module).__name__} leave out its parameters '
            f'{", ".join(missing)}: register its class with register_layers'
        )


def _one_after_another(module: nn.Module, layers: list[str]) -> Layers:
    """One submodule a layer; the children before and after them are the stem and the rest."""
    children = [name for name, _ in module.named_children()]
    first, last = (children.index(layers[i].split('.')[0]) for i in (0, -1))
    return Layers(
        layers=tuple((name,) for name in layers),
        stem=tuple(children[:first]),
        rest=tuple(children[last + 1 :]),
    )


@register_layers('ResNet')
def _resnet(module: nn.Module) -> Layers:
    """Of mmdet or torchvision; the stem may be deep."""
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
    """A layer is a level of the input; extra levels, made from the last one, are the rest."""
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
    """Of the `transformers` package: vision transformers such as DINOv2, SigLIP and CLIP."""
    for stack in ('layer', 'layers'):
        blocks = getattr(getattr(module, 'encoder', None), stack, None)
        if isinstance(blocks, nn.ModuleList):
            return _one_after_another(module, [f'encoder.{stack}.{i}' for i in range(len(blocks))])
    return None
