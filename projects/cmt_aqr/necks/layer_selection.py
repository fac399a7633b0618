"""Ways in which the maps of several encoder layers, or of two encoders, become one map.

Each is the first part of a :class:`~projects.cmt_aqr.necks.projectors.Projector`, because it learns
while the encoders are frozen.

Shapes: N images, L layers, C channels, h x w tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn


class Combined(NamedTuple):
    """One map for each image."""

    features: Tensor
    """(N, C, h, w)"""
    layer: Tensor | None = None
    """(N,), which of the layers it is, if one was chosen"""


class ConcatLayers(nn.Module):
    """All maps, concatenated by channel; the default of every projector."""

    def forward(self, maps: Sequence[Tensor]) -> Combined:
        """L maps (N, C, h, w) -> (N, L * C, h, w)."""
        return Combined(torch.cat([*maps], dim=1))


@MODELS.register_module()
class WeightedLayers(nn.Module):
    """Sum of all maps with learned weights, the softmax of one number for each layer.

    As ELMo (Peters et al., NAACL 2018) mixes the layers of a language model. All start equal.

    Args:
        num_layers: L.
    """

    def __init__(self, *, num_layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_layers))

    def forward(self, maps: Sequence[Tensor]) -> Combined:
        """L maps (N, C, h, w) -> (N, C, h, w)."""
        _check_count(self, maps, len(self.logits))
        weights = self.logits.softmax(dim=0)
        return Combined(torch.einsum('l,lnchw->nchw', weights, torch.stack([*maps])))


@MODELS.register_module()
class MixedEncoders(nn.Module):
    """Sum of the two halves of a :class:`DualEncoder`'s map with a learned weight.

    Each is normalised by token and projected to the same width; they start with equal weights.

    Args:
        channels: of each encoder.
        out_channels: of the sum.
    """

    def __init__(self, *, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.channels = [*channels]
        self.projections = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out_channels)) for width in channels
        )
        self.logits = nn.Parameter(torch.zeros(len(self.channels)))

    def forward(self, maps: Sequence[Tensor]) -> Combined:
        """One map (N, sum of the channels, h, w) -> (N, out_channels, h, w)."""
        _check_count(self, maps, 1)
        parts = maps[0].movedim(1, -1).split(self.channels, dim=-1)
        weights = self.logits.softmax(dim=0)
        mixed = sum(
            weight * project(part)
            for weight, project, part in zip(weights, self.projections, parts, strict=True)
        )
        return Combined(mixed.movedim(-1, 1))


def _check_count(module: nn.Module, maps: Sequence[Tensor], count: int) -> None:
    if len(maps) != count:
        raise ValueError(
            f'{type(module).__name__} takes {count} maps, but the backbone gives {len(maps)}: '
            'choose as many layers of the encoder'
        )
