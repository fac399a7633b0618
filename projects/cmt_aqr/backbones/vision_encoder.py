"""Vision transformers of the `transformers` package as image backbones.

DINOv2 with and without registers, DINOv3, SigLIP, SigLIP 2, CLIP, and others with the same
structure.

Shapes: N images of H x W pixels, h x w tokens of C channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ..freezing import Layers, register_layers
from ..freezing.layers import find_layers
from ..freezing.names import join
from .towers import (
    NORMALISATIONS,
    build_tower,
    load_tower,
    published_normalisation,
    read_config,
)

_ONE_SCALE = 'model.data_preprocessor: mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True'


@MODELS.register_module()
class VisionEncoder(BaseModule):
    """Maps of hidden layers of a vision transformer, without its class and register tokens.

    Images are RGB in [0, 1], the same for all encoders; each encoder normalises them as its tower
    was trained. In the config, ``data_preprocessor`` therefore has ``mean=[0, 0, 0]``,
    ``std=[255, 255, 255]`` and ``bgr_to_rgb=True``. Images need not be square, since position
    embeddings are interpolated.

    Only the blocks up to the last of ``layers`` are built. Freezing settings count these blocks, so
    that -1 is the last one that is built.

    Args:
        pretrained: folder with ``config.json`` and ``model.safetensors``, or a name. The weights
            are loaded when a training initialises its model; a test reads ``config.json`` only.
        architecture: ``model_type`` and the fields that differ from its defaults, in place of
            ``config.json``. Without ``pretrained`` the weights are random until a checkpoint is
            loaded.
        layers: blocks whose outputs are returned, one map each; negative ones count from the
            output. The last but one is the choice of Prismatic (Karamcheti et al., ICML 2024).
        stride: pixels of the input for each token; ``None`` is the tower's patch size. For another
            one the images are resized, so that every token covers ``stride`` x ``stride`` pixels.
        mean: mean of RGB in [0, 1]; ``None`` is that of the tower's family.
        std: standard deviation of the same; given together with ``mean``.
        allow_download: whether a name may be fetched from the network.
        with_cp: checkpoint the activations of trainable blocks.

    Raises:
        ImportError: `transformers` is missing or too old.
        FileNotFoundError: there is no such folder, or no such name in the local cache.
        ValueError: unknown tower, field or layer; a family without a known normalisation.
    """

    def __init__(
        self,
        *,
        pretrained: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        layers: Sequence[int] = (-2,),
        stride: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        allow_download: bool = False,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        config = read_config(pretrained, architecture, allow_download=allow_download)
        self.layers = _from_input(layers, config.num_hidden_layers)
        self.tower = build_tower(config, num_blocks=max(self.layers) + 1)
        self.patch_size = config.patch_size
        self.stride = stride or config.patch_size
        self.out_channels = config.hidden_size
        self._pretrained = pretrained
        self._allow_download = allow_download
        self._images_checked = False
        for name, value in zip(('mean', 'std'), _normalisation(config, mean, std), strict=True):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)
        if with_cp:
            self.tower.gradient_checkpointing_enable(dict(use_reentrant=False))

    def init_weights(self) -> None:
        """Load the pretrained weights; called by a training, but not by a test.

        Raises:
            FileNotFoundError: they are missing.
            ValueError: they do not fit, or were trained with another normalisation.
        """
        # Not that of the base class, which would have the tower draw random weights again.
        if self._pretrained is None or self._is_init:
            return
        published = published_normalisation(self._pretrained)
        own = (self.mean.flatten().cpu(), self.std.flatten().cpu())
        if published and not all(map(torch.allclose, own, map(torch.tensor, published))):
            raise ValueError(
                f'{self._pretrained} was trained with another normalisation: set '
                f'mean={published[0]}, std={published[1]} of the VisionEncoder'
            )
        load_tower(self.tower, self._pretrained, allow_download=self._allow_download)
        self._is_init = True

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) -> a map (N, C, H / stride, W / stride) for each layer.

        Raises:
            ValueError: ``stride`` does not divide the images, or, in the first call, their values
                are not within [0, 1].
        """
        self._check_images(x)
        rows, columns = (size // self.stride for size in x.shape[-2:])
        if self.stride != self.patch_size:
            size = (rows * self.patch_size, columns * self.patch_size)
            # On CPUs, only float32 can be resized without aliasing.
            x = functional.interpolate(x.float(), size, mode='bilinear', antialias=True)
        hidden = self._hidden_states((x - self.mean) / self.std)
        # Class and register tokens come first.
        patches = (tokens[:, -rows * columns :].transpose(1, 2) for tokens in hidden)
        return tuple(patch.unflatten(2, (rows, columns)) for patch in patches)

    def _hidden_states(self, pixels: Tensor) -> list[Tensor]:
        """Tokens (N, T, C) of each layer; unlike `output_hidden_states`, no other layer is kept."""
        blocks = [self.tower.get_submodule(name) for (name,) in find_layers(self.tower).layers]
        kept: dict[int, Tensor] = {}
        handles = [
            blocks[layer].register_forward_hook(partial(_keep, kept, layer))
            for layer in set(self.layers)
        ]
        try:
            self.tower(**self._inputs(pixels))
        finally:
            for handle in handles:
                handle.remove()
        return [kept[layer] for layer in self.layers]

    def _inputs(self, pixels: Tensor) -> dict[str, Any]:
        parameters = inspect.signature(self.tower.forward).parameters
        if 'spatial_shapes' in parameters:
            return _patches(pixels, self.patch_size)
        if 'interpolate_pos_encoding' in parameters:
            return dict(pixel_values=pixels, interpolate_pos_encoding=True)
        return dict(pixel_values=pixels)

    def _check_images(self, x: Tensor) -> None:
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f'images of {height} x {width} pixels cannot be divided into tokens of '
                f'{self.stride} x {self.stride}: set the stride of the VisionEncoder to a divisor, '
                'or pad_size_divisor of the data_preprocessor to a multiple'
            )
        if self._images_checked or type(x) is not Tensor or x.is_meta:
            return  # fake tensors have no values either
        self._images_checked = True
        low, high = torch.stack(x.detach().float().aminmax()).tolist()
        if low < -0.5 or high > 1.5:  # failures and resizing may go beyond [0, 1] by a little
            raise ValueError(
                f'the VisionEncoder got images from {low:.3g} to {high:.3g}, but normalises RGB in '
                f'[0, 1] itself: set {_ONE_SCALE}'
            )


@register_layers('VisionEncoder')
def _blocks(module: VisionEncoder) -> Layers:
    """The blocks of the tower."""
    found = find_layers(module.tower)
    layers, stem, rest = (
        tuple(join('tower', name) for name in names)
        for names in (sum(found.layers, ()), found.stem, found.rest)
    )
    return Layers(layers=tuple((name,) for name in layers), stem=stem, rest=rest)


def _keep(kept: dict[int, Tensor], layer: int, block: nn.Module, inputs: tuple, out: Any) -> None:
    kept[layer] = out if torch.is_tensor(out) else out[0]


def _patches(pixels: Tensor, size: int) -> dict[str, Any]:
    """Inputs of SigLIP 2 of any aspect ratio: patches (N, h * w, size * size * 3)."""
    patches = pixels.unfold(2, size, size).unfold(3, size, size)  # (N, 3, h, w, size, size)
    rows, columns = patches.shape[2:4]
    return dict(
        pixel_values=patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2),
        pixel_attention_mask=None,
        # On the CPU, since the tower reads it.
        spatial_shapes=torch.tensor([[rows, columns]], device='cpu').expand(len(pixels), 2),
    )


def _from_input(layers: Sequence[int], count: int) -> tuple[int, ...]:
    """Layers counted from the input."""
    wrong = [layer for layer in layers if not -count <= layer < count]
    if wrong or not len(layers):
        raise ValueError(
            f'VisionEncoder layers {list(layers)}: must be one or more of 0 to {count - 1}, or -1 '
            f'to -{count} from the output'
        )
    return tuple(layer % count for layer in layers)


def _normalisation(
    config: Any, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float], Sequence[float]]:
    if mean is not None and std is not None:
        return mean, std
    if (mean, std) != (None, None) or config.model_type not in NORMALISATIONS:
        raise ValueError(
            f'VisionEncoder of type {config.model_type}: give both mean and std of its images'
        )
    return NORMALISATIONS[config.model_type]
