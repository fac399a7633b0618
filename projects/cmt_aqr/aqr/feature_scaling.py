"""An ablation: the weights of queries scale the features themselves, before any attention.

The older idea that the bias is held against. A bias belongs to one query; a scaled feature is what
all queries see, so that those which overlap have to agree.

Shapes: B batch, Q queries, K tokens, C channels, M token groups.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .layout import TokenLayout
from .weight_maps import render_weights
from .windows import Windows


class FeatureScaling(nn.Module):
    """``features * (1 + map)``: the weights of the queries as maps, and a residual.

    Zero weights leave the features as they are, bit for bit. It has nothing to learn.

    Args:
        sigma: of the Gaussians in the maps, as a share of a window's side.

    Raises:
        ValueError: ``sigma`` is not above 0.
    """

    def __init__(self, *, sigma: float = 0.25) -> None:
        super().__init__()
        if sigma <= 0:
            raise ValueError(f'sigma is {sigma}; it must be above 0')
        self.sigma = sigma

    def forward(
        self,
        features: Tensor,
        weights: Tensor,
        *,
        windows: Sequence[Windows],
        layout: TokenLayout,
        denoising_slots: int = 0,
    ) -> Tensor:
        """Scale the features of a batch.

        Args:
            features: (B, K, C).
            weights: (B, Q, M).
            windows: of every sensor that is there.
            layout: of the tokens.
            denoising_slots: the first queries, which stand where the boxes are. They leave nothing
                on the maps, which all queries see.

        Returns:
            (B, K, C).
        """
        learned = [part.from_query(denoising_slots) for part in windows]
        maps = render_weights(weights, learned, layout, sigma=self.sigma)
        return features * (1 + maps.faded).to(features)[..., None]
