"""What the router's weights ask of the decoder's cross-attention.

By default a bias: ``bias(q, k) = clamp(s_m w_m(q) window_m(q, k), -limit, limit)``, with m the
group of token k. A bias moves little where the logits of the sensors lie far apart, as those of a
trained CMT do; a gate, a mix and a hard choice act there too.

Shapes: B batch, H heads, Q queries, K tokens, M token groups, P windows, W cells of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..transformer.attention_bias import (
    AttentionBias,
    AttentionGate,
    AttentionMix,
    Routing,
    WindowBias,
)
from ..transformer.token_groups import TokenGroups
from .hard_choice import choose, mask_others
from .windows import Windows

SCOPES = {'global': ('global',), 'local': ('local',), 'both': ('global', 'local')}
SHAPES = ('box', 'gaussian')
FORMS = ('add', 'gate', 'mix', 'hard')
SCALES = ('shared', 'per_layer')
_SCALED = ('add', 'mix')


class AttentionBiasGenerator(nn.Module):
    """Turns the weights of queries into what is asked of attention; zero weights ask for nothing.

    Scales and temperatures are kept in their range by :meth:`project_scales` after every optimizer
    step, not by a clamp in the forward pass, which would give one at its limit no gradient.

    Args:
        form: ``add`` adds biases to the logits; ``gate`` scales the share of each sensor in the
            output by 1 + weight, and has nothing to learn itself; ``mix`` sets these shares, from
            the log-sum-exp of each sensor's logits over a learned temperature, and a bias. See
            :mod:`projects.cmt_aqr.transformer.attention_bias`. ``hard`` takes the weights for the
            logits of an expert, and masks the tokens of the others, see
            :mod:`projects.cmt_aqr.aqr.hard_choice`; it has nothing to learn itself either.
        scope: ``global`` for all tokens of a group, ``local`` for those in the query's windows,
            ``both`` for the sum of the two with a scale each. Forms other than ``add`` are
            ``global``.
        window: ``box``, one in the whole window, or ``gaussian``, round the query's place.
        sigma: standard deviation of the Gaussian, as a share of the window's side.
        scales: ``shared`` by the decoder's layers, or ``per_layer``, a set for each. A gate
            or hard choice has none.
        initial_scale: of every scale, by which weights are multiplied to biases.
        learn_scale: whether the scales are learned; else they keep ``initial_scale``. Either way
            they are ``bias_scale`` of the state dict.
        scale_range: least and greatest scale.
        limit: of a bias, either sign.
        num_heads: H of the decoder, each of which has a temperature; the head gives it.
        num_layers: L of the decoder, each of which may have scales; the head gives it.

    Raises:
        ValueError: an option is none of those above, or a number out of its range; a form other
            than ``add`` in windows; a mix without ``num_heads``; scales by layer of a form that has
            none, or without ``num_layers``.
    """

    def __init__(
        self,
        *,
        form: str = 'add',
        scope: str = 'global',
        window: str = 'box',
        sigma: float = 0.25,
        scales: str = 'shared',
        initial_scale: float = 2.5,
        learn_scale: bool = True,
        scale_range: tuple[float, float] = (0.5, 5.0),
        limit: float = 5.0,
        num_heads: int | None = None,
        num_layers: int | None = None,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f'form is {form!r}; it must be one of {list(FORMS)}')
        if scope not in SCOPES:
            raise ValueError(f'scope is {scope!r}; it must be one of {list(SCOPES)}')
        if form != 'add' and scope != 'global':
            raise ValueError(
                f"form={form!r} acts on whole sensors: scope is {scope!r}; it must be 'global'"
            )
        if window not in SHAPES:
            raise ValueError(f'window is {window!r}; it must be one of {list(SHAPES)}')
        if scales not in SCALES:
            raise ValueError(f'scales is {scales!r}; it must be one of {list(SCALES)}')
        if scales == 'per_layer' and (form not in _SCALED or num_layers is None):
            raise ValueError(f"scales='per_layer' needs num_layers, and a form of {list(_SCALED)}")
        low, high = scale_range
        if not 0 < low <= initial_scale <= high:
            raise ValueError(
                f'initial_scale is {initial_scale}; it must lie within scale_range {scale_range}, '
                'which must be above 0'
            )
        if sigma <= 0 or limit <= 0:
            raise ValueError(f'sigma ({sigma}) and limit ({limit}) must be above 0')
        if form == 'mix' and num_heads is None:
            raise ValueError("form='mix' learns a temperature for each head; it needs num_heads")
        self.form = form
        self.scopes = SCOPES[scope] if form in _SCALED else ()
        self.window = window
        self.sigma = sigma
        self.scale_range = (low, high)
        self.limit = limit
        # One row for each scope; LiDAR, then camera. With scales by layer, one such table for each.
        layers = (num_layers,) if scales == 'per_layer' else ()
        scale = torch.full((*layers, len(self.scopes), 2), float(initial_scale))
        if form not in _SCALED:
            self.register_parameter('bias_scale', None)
        elif learn_scale:
            self.bias_scale = nn.Parameter(scale)
        else:
            self.register_buffer('bias_scale', scale)
        self.register_parameter('temperature', None)
        if form == 'mix':
            self.temperature = nn.Parameter(torch.ones(num_heads))

    @torch.no_grad()
    def project_scales(self) -> None:
        """Put scales and temperatures back into their range; for after each optimizer step."""
        if self.bias_scale is not None:
            self.bias_scale.clamp_(*self.scale_range)
        if self.temperature is not None:
            self.temperature.clamp_(min=1)

    def forward(
        self, weights: Tensor, *, groups: TokenGroups, windows: Sequence[Windows]
    ) -> Routing | list[Routing]:
        """What a batch asks of attention.

        Args:
            weights: (B, Q, M), LiDAR first; of each camera or of all together.
            groups: the M groups of tokens, as the weights have them.
            windows: of every sensor that is there.

        Returns:
            the same for all layers, or a list with one for each.
        """
        if self.form == 'gate':
            return AttentionGate(1 + weights, groups)
        if self.form == 'hard':
            return mask_others(choose(weights), groups)
        if self.bias_scale.dim() == 3:
            return [self._scaled(weights, scale, groups, windows) for scale in self.bias_scale]
        return self._scaled(weights, self.bias_scale, groups, windows)

    def _scaled(
        self, weights: Tensor, scales: Tensor, groups: TokenGroups, windows: Sequence[Windows]
    ) -> AttentionBias | AttentionMix:
        """With one table of scales (scopes, 2)."""
        sensor = torch.arange(weights.shape[-1], device=weights.device).clamp(max=1)
        strengths = {
            scope: weights * scale[sensor] for scope, scale in zip(self.scopes, scales, strict=True)
        }
        if self.form == 'mix':
            return AttentionMix(strengths['global'], groups, self.temperature, self.limit)
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
        return windows.inside if self.window == 'box' else windows.gaussian(self.sigma)
