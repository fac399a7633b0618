"""Two vision encoders side by side.

An encoder aligned with language knows what a thing is; one trained on images alone knows where it
is. Prismatic (Karamcheti et al., ICML 2024) and OpenVLA (Kim et al., CoRL 2024) concatenate SigLIP
and DINOv2 patch by patch.

Shapes: N images, h x w tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from ..freezing import build_freezable


@MODELS.register_module()
class DualEncoder(BaseModule):
    """The maps of two encoders, concatenated by token.

    Each may have freezing settings of its own. This module adds no parameters, so that the whole
    can be frozen and its features cached: a mix by a learned weight is a part of the neck, see
    :class:`~projects.cmt_aqr.necks.MixedEncoders`.

    Args:
        first: config of the first :class:`VisionEncoder`; may be left out, like the second.
        second: config of the second.
        stride: pixels of the input for each token of both, see :class:`VisionEncoder`; brings
            patches of 14 and 16 pixels to the same tokens. Required if the patches differ.

    Raises:
        ValueError: no encoder; different strides or numbers of layers.
    """

    def __init__(
        self,
        *,
        first: Mapping | None = None,
        second: Mapping | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__()
        given = {} if stride is None else {'stride': stride}
        configs = {n: c for n, c in (('first', first), ('second', second)) if c is not None}
        for name, config in configs.items():
            encoder = build_freezable({**config, **given}, MODELS, name=f'img_backbone.{name}')
            self.add_module(name, encoder)
        self._check_encoders()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W), RGB in [0, 1] -> one map (N, sum of C, h, w) for each layer."""
        maps = (encoder(x) for encoder in self.children())
        return tuple(torch.cat(layer, dim=1) for layer in zip(*maps, strict=True))

    @property
    def out_channels(self) -> int:
        """Channels of a map."""
        return sum(encoder.out_channels for encoder in self.children())

    def _check_encoders(self) -> None:
        encoders = [*self.children()]
        strides = [encoder.stride for encoder in encoders]
        layers = [len(encoder.layers) for encoder in encoders]
        if not encoders:
            raise ValueError('DualEncoder needs a first or a second encoder')
        if len(set(strides)) > 1:
            raise ValueError(
                f'DualEncoder: tokens of {strides[0]} and {strides[1]} pixels do not meet; set its '
                f'stride, such as {max(strides)}'
            )
        if len(set(layers)) > 1:
            raise ValueError(
                f'DualEncoder: {layers[0]} and {layers[1]} layers cannot be concatenated one by '
                'one; choose as many of each'
            )
