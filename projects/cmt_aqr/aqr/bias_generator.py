"""Biases of the decoder's cross-attention from the router's weights.

``bias(q, k) = clamp(s_m w_m(q) window_m(q, k), -limit, limit)``, with m the group of token k.

Shapes: B batch, Q queries, K tokens, M token groups, P windows, W cells of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..transformer.attention_bias import AttentionBias, WindowBias
from .windows import Windows

SCOPES = {'global': ('global',), 'local': ('local',), 'both': ('global', 'local')}
SHAPES = ('box', 'gaussian')


class AttentionBiasGenerator(nn.Module):
    """Turns the weights of queries into attention biases, with a learned scale for each sensor.

    The scales are kept in their range by :meth:`project_scales` after every optimizer step, not
    by a clamp in the forward pass, which would give a scale at its limit no gradient.

    Args:
        scope: ``global`` for all tokens of a group, ``local`` for those in the query's windows,
            ``both`` for the sum of the two with a scale each.
        window: ``box``, one in the whole window, or ``gaussian``, round the query's place.
        sigma: standard deviation of the Gaussian, as a share of the window's side.
        initial_scale: of every scale.
        scale_range: least and greatest scale.
        limit: of a bias, either sign.

    Raises:
        ValueError: an option is none of those above, or a number out of its range.
    """

    def __init__(
        self,
        *,
        scope: str = 'global',
        window: str = 'box',
        sigma: float = 0.25,
        initial_scale: float = 2.5,
        scale_range: tuple[float, float] = (0.5, 5.0),
        limit: float = 5.0,
    ) -> None:
        super().__init__()
        if scope not in SCOPES:
            raise ValueError(f'scope is {scope!r}; it must be one of {list(SCOPES)}')
        if window not in SHAPES:
            raise ValueError(f'window is {window!r}; it must be one of {list(SHAPES)}')
        low, high = scale_range
        if not 0 < low <= initial_scale <= high:
            raise ValueError(
                f'initial_scale is {initial_scale}; it must lie within scale_range {scale_range}, '
                'which must be above 0'
            )
        if sigma <= 0 or limit <= 0:
            raise ValueError(f'sigma ({sigma}) and limit ({limit}) must be above 0')
        self.scopes = SCOPES[scope]
        self.window = window
        self.sigma = sigma
        self.scale_range = (low, high)
        self.limit = limit
        # One row for each scope; LiDAR, then camera.
        self.bias_scale = nn.Parameter(torch.full((len(self.scopes), 2), float(initial_scale)))

    @torch.no_grad()
    def project_scales(self) -> None:
        """Put every scale back into its range; to be called after each optimizer step."""
        self.bias_scale.clamp_(*self.scale_range)

    def forward(
        self, weights: Tensor, *, groups: Tensor, windows: Sequence[Windows]
    ) -> AttentionBias:
        """Biases of a batch.

        Args:
            weights: (B, Q, M), LiDAR first; of each camera or of all together.
            groups: (K,), group of every token, as the weights have them.
            windows: of every sensor that is there.
        """
        strengths = {
            scope: weights * scale[(torch.arange(weights.shape[-1]) > 0).long()]
            for scope, scale in zip(self.scopes, self.bias_scale, strict=True)
        }
        local = ()
        if 'local' in strengths:
            local = tuple(self._in_windows(strengths['local'], part) for part in windows)
        everywhere = strengths.get('global', torch.zeros_like(weights))
        return AttentionBias(everywhere, groups, local, self.limit)

    def _in_windows(self, strengths: Tensor, windows: Windows) -> WindowBias:
        """Strength of each window's query and group in the shape of the window."""
        group = windows.group.clamp(max=strengths.shape[-1] - 1)
        strength = strengths[windows.sample, windows.query, group][:, None]
        added = strength * self._shape(windows).to(strength)
        return WindowBias(windows.sample, windows.query, windows.token, added)

    def _shape(self, windows: Windows) -> Tensor:
        """(P, W): 1 or the Gaussian on the map, 0 outside."""
        if self.window == 'box':
            return windows.inside
        side = windows.token.shape[1] ** 0.5
        distance = windows.offset.square().sum(dim=-1)
        return windows.inside * torch.exp(-distance / (2 * (self.sigma * side) ** 2))
