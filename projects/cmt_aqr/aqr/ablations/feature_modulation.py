"""Feature modulation: the weights of queries scale the features, before any attention.

A routing form acts on one query's attention; a scaled feature is seen by all queries, so that those
with overlapping windows have to agree.
"""

from typing import Any

from mmdet3d.registry import MODELS

from ..router import AdaptiveQueryRouter, RouterOutput
from ..weight_maps import render_weights


@MODELS.register_module()
class FeatureModulationRouter(AdaptiveQueryRouter):
    """``features * (1 + map)``: the weights rendered as maps, with a residual connection.

    Weights of zero leave the features unchanged, bit for bit.

    Args:
        sigma: standard deviation of the Gaussians in the maps, as a share of a window's side.
        options: those of :class:`~projects.cmt_aqr.aqr.router.AdaptiveQueryRouter`;
            ``routing=None`` leaves attention unchanged.

    Raises:
        ValueError: ``sigma`` is not above 0.
    """

    def __init__(self, *, sigma: float = 0.25, **options: Any) -> None:
        super().__init__(**options)
        if sigma <= 0:
            raise ValueError(f'aqr.sigma is {sigma}; it must be above 0')
        self.sigma = sigma

    def forward(self, *args: Any, **kwargs: Any) -> RouterOutput:
        """The router's output with modulated tokens."""
        output = super().forward(*args, **kwargs)
        # Denoising queries stand at the boxes: learned queries must not see where they are.
        learned = [
            part._replace(inside=part.inside & (part.query >= output.denoising_slots)[:, None])
            for part in output.windows
        ]
        tokens = output.tokens
        maps = render_weights(output.weights, learned, tokens.layout, sigma=self.sigma)
        features = tokens.features * (1 + maps.faded).to(tokens.features)[..., None]
        return output._replace(tokens=tokens._replace(features=features))
