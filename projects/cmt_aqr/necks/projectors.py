"""Projectors: necks that map each token of a frozen encoder to the channels of the head.

Shapes: N images, C channels, h x w tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from .layer_selection import ConcatLayers


@MODELS.register_module()
class LinearProjector(BaseModule):
    """One linear layer, as in LLaVA (Liu et al., NeurIPS 2023); base of the other projectors.

    Args:
        in_channels: of the combined map.
        out_channels: of the output.
        combine: config of a module of :mod:`~projects.cmt_aqr.necks.layer_selection`, which makes
            one map of those of the encoder; by default, all are concatenated.
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        combine: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.combine = ConcatLayers() if combine is None else MODELS.build(combine)
        widths = [in_channels, *self.hidden_channels(), out_channels]
        layers: list[nn.Module] = []
        for fewer, more in pairwise(widths):
            layers += [nn.GELU(), nn.Linear(fewer, more)]
        self.layers = nn.Sequential(*layers[1:])

    def hidden_channels(self) -> list[int]:
        """Widths between the linear layers."""
        return []

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Maps (N, C, h, w) of the encoder -> one map (N, out_channels, h, w).

        Raises:
            ValueError: the combined map does not have ``in_channels``.
        """
        features, layer = self.combine(maps)
        if features.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__} has in_channels={self.in_channels}, but gets '
                f'{features.shape[1]} channels from {len(maps)} map(s): correct in_channels'
            )
        return (self.project(features.movedim(1, -1), layer).movedim(-1, 1),)

    def project(self, tokens: Tensor, layer: Tensor | None) -> Tensor:
        """(N, h, w, in_channels) -> (N, h, w, out_channels).

        Args:
            tokens: of the combined map.
            layer: (N,), the layer that was chosen for each image, if any.
        """
        return self.layers(tokens)


@MODELS.register_module()
class MLPProjector(LinearProjector):
    """Two linear layers with GELU between them, as in LLaVA-1.5 (Liu et al., CVPR 2024)."""

    def hidden_channels(self) -> list[int]:
        """As wide as the output."""
        return [self.out_channels]


@MODELS.register_module()
class FusedMLPProjector(LinearProjector):
    """Three linear layers, the first four times as wide as its input.

    Prismatic (Karamcheti et al., ICML 2024) projects two concatenated encoders in this way.
    """

    def hidden_channels(self) -> list[int]:
        """Four times as wide as the input, then as wide as the output."""
        return [4 * self.in_channels, self.out_channels]
