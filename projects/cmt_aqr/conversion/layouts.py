"""Names of weights in published files and their counterparts in a model of this project.

Every key of a file is mapped to a name in the model, or to a reason why it is not used. Keys with
neither are refused by :mod:`.convert`.
"""

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from .source import ConversionError

HEAD = 'pts_bbox_head.'
BACKBONE = 'img_backbone.'
ROUTER = 'pts_bbox_head.router.'
WEIGHT_GENERATOR = f'{ROUTER}aqr_weight_generator.'

# Prefixes of the weights of optional parts.
_OPTIONAL = {
    'camera branch': ('img_backbone.', 'img_neck.', 'pts_bbox_head.rv_embedding.'),
    'LiDAR branch': (
        'pts_voxel_encoder.',
        'pts_middle_encoder.',
        'pts_backbone.',
        'pts_neck.',
        'pts_bbox_head.shared_conv.',
    ),
    'router': (ROUTER,),
}

# MoME (Park et al., CVPR 2025) uses the names of CMT and has a router inside the transformer.
_MOME_TRANSFORMER = 'pts_bbox_head.transformer.'
_MOME_ROUTER = f'{_MOME_TRANSFORMER}encoder.'
_MOME_PLACES = {
    f'{_MOME_ROUTER}layers.0.attentions.0.attn.': f'{WEIGHT_GENERATOR}attention.',
    f'{_MOME_ROUTER}layers.0.ffns.0.': f'{WEIGHT_GENERATOR}ffn.',
    f'{_MOME_ROUTER}layers.0.norms.': f'{WEIGHT_GENERATOR}norms.',
}
MOME_TYPE_EMBEDDINGS = (f'{_MOME_TRANSFORMER}bev_type_embed', f'{_MOME_TRANSFORMER}rv_type_embed')
_MOME_NO_PLACE = {
    f'{_MOME_ROUTER}post_norm.': 'the router has no further norm after its layer',
    f'{_MOME_TRANSFORMER}selected_cls.': (
        'a weight for each sensor takes the place of the choice among three experts'
    ),
    f'{_MOME_TRANSFORMER}cam_embed.': (
        'of the expert for cameras alone, and there is one decoder for all queries'
    ),
    **dict.fromkeys(
        MOME_TYPE_EMBEDDINGS,
        'added to every query; folded into the biases of attention, to the same effect',
    ),
}

# Prefixes of the image backbone in detectors; a classifier has none.
_BACKBONE_PREFIXES = ('img_backbone.', 'backbone.bottom_up.', 'bottom_up.', 'backbone.', '')
_CLASSIFIERS = ('fc.', 'classifier.')


class Layout(enum.Enum):
    """Project or kind of model that a file comes from."""

    CMT = 'CMT'
    MOME = 'MoME'
    IMAGE_BACKBONE = 'pre-training of an image backbone'


@dataclass(frozen=True, kw_only=True)
class Places:
    """Mapping of the keys of a file."""

    targets: Mapping[str, str]
    """name in the model, by name in the file"""
    left_out: Mapping[str, str]
    """reason why a key is not used, by name in the file"""


def recognise(names: Iterable[str]) -> Layout:
    """Layout that the names of a file belong to."""
    of_head = [name for name in names if name.startswith(HEAD)]
    of_router = (_MOME_ROUTER, f'{_MOME_TRANSFORMER}selected_cls.')
    if any(name.startswith(of_router) for name in of_head):
        return Layout.MOME
    return Layout.CMT if of_head else Layout.IMAGE_BACKBONE


def find_places(layout: Layout, names: Collection[str], model_names: Collection[str]) -> Places:
    """Map every key to a name in the model, or to a known reason why it is not used.

    Raises:
        ConversionError: a file of an image backbone contains none, or the model has none.
    """
    if layout is Layout.IMAGE_BACKBONE:
        return _places_of_backbone(names, model_names)
    is_mome = layout is Layout.MOME
    targets, left_out = {}, {}
    for name in names:
        target = _rename(name) if is_mome else name
        if target in model_names:
            targets[name] = target
            continue
        reasons = (reason for prefix, reason in _MOME_NO_PLACE.items() if name.startswith(prefix))
        reason = next(reasons, None) if is_mome else None
        reason = reason or _lacks_branch(target, model_names)
        if reason:
            left_out[name] = reason
    return Places(targets=targets, left_out=left_out)


def may_be_missing(layout: Layout, name: str, filled: Collection[str]) -> str | None:
    """Reason why a file may lack a tensor of the model, or ``None`` if it must contain it.

    Both ``name`` and ``filled``, for which the file has a tensor, are names in the model.
    """
    if layout is Layout.IMAGE_BACKBONE and not name.startswith(BACKBONE):
        return 'pre-training fills the image backbone alone'
    if layout is Layout.MOME and name.startswith(tuple(_MOME_PLACES.values())):
        return None
    if name.startswith(_OPTIONAL['router']) and _part(name) not in map(_part, filled):
        return 'a part of the router that others do not have'
    return None


def _part(name: str) -> str:
    """First four components of a name: 'pts_bbox_head.router.aqr_weight_generator.norms'."""
    return '.'.join(name.split('.')[:4])


def _rename(name: str) -> str:
    for old, new in _MOME_PLACES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _lacks_branch(name: str, model_names: Collection[str]) -> str | None:
    for branch, prefixes in _OPTIONAL.items():
        if name.startswith(prefixes) and not any(n.startswith(prefixes) for n in model_names):
            return f'the config has no {branch}'
    return None


def _places_of_backbone(names: Collection[str], model_names: Collection[str]) -> Places:
    wanted = [name.removeprefix(BACKBONE) for name in model_names if name.startswith(BACKBONE)]
    if not wanted:
        raise ConversionError(
            'the config has no img_backbone, the only part that the file can fill: none of its '
            f'names starts with {HEAD!r}'
        )
    prefix = next((p for p in _BACKBONE_PREFIXES if p + wanted[0] in names), None)
    if prefix is None:
        tried = ', '.join(repr(prefix + wanted[0]) for prefix in _BACKBONE_PREFIXES)
        raise ConversionError(
            f"the file holds no image backbone like the config's: none of {tried}; its names start "
            f'with {", ".join(sorted({name.split(".")[0] for name in names}))}'
        )
    targets = {prefix + name: BACKBONE + name for name in wanted if prefix + name in names}
    left_out = {}
    for name in names:
        if not name.startswith(prefix):
            left_out[name] = 'not of the image backbone'
        elif prefix == '' and name.startswith(_CLASSIFIERS):
            left_out[name] = 'the classifier of the pre-training'
    return Places(targets=targets, left_out=left_out)
