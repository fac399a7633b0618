"""Building and loading the vision transformers ("towers") of the `transformers` package.

`transformers` is an optional dependency and takes seconds to import, so it is imported on use.
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..freezing.layers import find_layers

# Earlier releases nest some towers one module deeper, which changes the names of their weights.
MINIMUM_TRANSFORMERS = (5, 20)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SYMMETRIC = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPENAI_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# Mean and standard deviation of RGB in [0, 1] with which each family was trained.
NORMALISATIONS = {
    'dinov2': IMAGENET,
    'dinov2_with_registers': IMAGENET,
    'dinov3_vit': IMAGENET,
    'siglip_vision_model': SYMMETRIC,
    'siglip2_vision_model': SYMMETRIC,
    'clip_vision_model': OPENAI_CLIP,
}
_REMEDY = (
    'download the tower into a folder, with config.json and model.safetensors, and give the folder'
)


def import_transformers() -> ModuleType:
    """The `transformers` package.

    Raises:
        ImportError: it is missing or too old.
    """
    least = '.'.join(map(str, MINIMUM_TRANSFORMERS))
    remedy = f'install {least} or newer, see requirements/encoders.txt'
    try:
        transformers = importlib.import_module('transformers')
    except ImportError:
        raise ImportError(
            f'VisionEncoder needs transformers, but it is missing: {remedy}'
        ) from None
    if tuple(map(int, transformers.__version__.split('.')[:2])) < MINIMUM_TRANSFORMERS:
        raise ImportError(f'transformers {transformers.__version__} is too old: {remedy}')
    return transformers


def read_config(
    pretrained: str | None, architecture: Mapping[str, Any] | None, *, allow_download: bool
) -> Any:
    """Configuration of a tower, from ``architecture`` or else from the ``config.json``.

    Args:
        pretrained: folder or name of a model; of a model of images and texts, the tower is taken.
        architecture: ``model_type``, and fields of its configuration that differ from its defaults.
        allow_download: whether a name may be fetched from the network.

    Raises:
        ValueError: neither is given, or the type or a field is unknown.
        FileNotFoundError: there is no such model.
    """
    if architecture is not None:
        return _config_of(dict(architecture))
    if pretrained is None:
        raise ValueError(
            'VisionEncoder needs pretrained, the folder of a tower, or its architecture'
        )
    folder = Path(pretrained)
    if folder.is_dir() and not (folder / 'config.json').is_file():
        raise FileNotFoundError(f'{folder} has no config.json: {_REMEDY}')
    try:
        config = import_transformers().AutoConfig.from_pretrained(
            pretrained, local_files_only=not allow_download
        )
    except OSError as error:
        raise FileNotFoundError(_not_found(pretrained, allow_download)) from error
    except ValueError as error:
        model_type = json.loads((folder / 'config.json').read_text()).get('model_type')
        raise ValueError(_unknown(model_type)) from error
    return _vision_config(config)


def _config_of(fields: dict[str, Any]) -> Any:
    model_type = fields.pop('model_type', None)
    try:
        config = import_transformers().AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ValueError(_unknown(model_type)) from error
    unknown = sorted(name for name in fields if not hasattr(config, name))
    if unknown:
        raise ValueError(f'architecture of {model_type} has no {", ".join(unknown)}')
    return _vision_config(type(config)(**fields))


def _vision_config(config: Any) -> Any:
    config = getattr(config, 'vision_config', config)
    if not isinstance(getattr(config, 'patch_size', None), int):
        raise ValueError(_unknown(config.model_type))
    return config


def build_tower(config: Any, *, num_blocks: int) -> nn.Module:
    """A tower with its first ``num_blocks`` blocks and random weights, in float32.

    Left out are the parts that no patch token of a hidden layer depends on: later blocks, final
    norm, pooling head and mask token. They would cost time, and would get no gradient.

    Raises:
        ValueError: it is not a vision transformer with known blocks.
    """
    config = copy.deepcopy(config)
    config.num_hidden_layers = num_blocks
    config.name_or_path = ''  # the features depend on the weights, not on the folder they were in
    try:
        tower = import_transformers().AutoModel.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise ValueError(_unknown(config.model_type)) from error
    if find_layers(tower) is None:
        raise ValueError(_unknown(config.model_type))
    return _without_unused_parts(tower)


def load_tower(tower: nn.Module, pretrained: str, *, allow_download: bool) -> None:
    """Fill a tower from :func:`build_tower` with the weights of a folder or name.

    Only safetensors are read, which cannot contain code.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: weights are missing or have another shape.
    """
    folder = Path(pretrained)
    if folder.is_dir() and not any(folder.glob('*.safetensors')):
        raise FileNotFoundError(f'{folder} has no model.safetensors: {_REMEDY}')
    logs = import_transformers().logging
    verbosity = logs.get_verbosity()
    logs.set_verbosity_error()  # it would list the weights of all parts that are left out
    try:
        loaded, report = type(tower).from_pretrained(
            pretrained,
            config=tower.config,
            dtype=torch.float32,
            local_files_only=not allow_download,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are in the report
            output_loading_info=True,
        )
    except OSError as error:
        raise FileNotFoundError(_not_found(pretrained, allow_download)) from error
    finally:
        logs.set_verbosity(verbosity)
    own = tower.state_dict().keys()
    wrong = own & {*report['missing_keys'], *(key for key, *_ in report['mismatched_keys'])}
    if wrong:
        raise ValueError(
            f'{pretrained} does not fit the {type(tower).__name__}: {len(wrong)} tensors are '
            f'missing or have another shape, such as {min(wrong)}; correct its architecture'
        )
    # Through load_state_dict, so that the audit of frozen weights sees them filled.
    tower.load_state_dict(_without_unused_parts(loaded).state_dict())


def published_normalisation(pretrained: str) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation in a folder's ``preprocessor_config.json``, if it has any."""
    file = Path(pretrained) / 'preprocessor_config.json'
    settings = json.loads(file.read_text()) if file.is_file() else {}
    if 'image_mean' not in settings or 'image_std' not in settings:
        return None
    return settings['image_mean'], settings['image_std']


def _without_unused_parts(tower: nn.Module) -> nn.Module:
    for norm in ('layernorm', 'norm', 'post_layernorm'):
        if hasattr(tower, norm):
            setattr(tower, norm, nn.Identity())
    if getattr(tower, 'use_head', False):
        tower.use_head = False
        del tower.head
    if getattr(tower, 'pooler', None) is not None:
        tower.pooler = None
    if getattr(tower.embeddings, 'mask_token', None) is not None:
        tower.embeddings.mask_token = None
    return tower


def _not_found(pretrained: str, allow_download: bool) -> str:
    where = 'cannot be downloaded' if allow_download else 'in the local cache of transformers'
    remedy = _REMEDY if allow_download else f'{_REMEDY}, or set allow_download=True'
    either = 'not a folder, and' if allow_download else 'neither a folder nor'
    return f'the tower {pretrained!r} is {either} {where}: {remedy}'


def _unknown(model_type: object) -> str:
    return (
        f'{model_type!r} is not the model_type of a vision transformer known to transformers; '
        f'tried are {", ".join(NORMALISATIONS)}'
    )
