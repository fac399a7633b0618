"""Routing requests to cross-attention, in a form that never materialises a (Q, K) tensor.

Attention is computed within each group of tokens. A form sets the share of each group in the
output, from the router's weights and the log-sum-exp of each group's logits. Weights of zero leave
attention unchanged.

Shapes: B batch, H heads, Q queries, K tokens, M token groups, P windows, W cells of a window, N
pairs of a query and a token in its windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from .pairs import SparsePairs
from .token_groups import TokenGroups

if TYPE_CHECKING:
    from ..aqr.windows import Windows

SCOPES = {'global': ('global',), 'local': ('local',), 'both': ('global', 'local')}
MODALITIES = ('lidar', 'camera')
# A bias counts as clamped from this share of its limit on: tanh never quite reaches 1.
CLAMPED_FROM = 0.99


class PairBias(NamedTuple):
    """Bias in the windows of all queries, as a flat list of (query, token) pairs."""

    pairs: SparsePairs
    """a token occurs once for a query, except in pairs whose difference is the constant 0"""
    base: Tensor
    """(N,), in the order of the pairs: clamped bias of the token's group"""
    difference: Tensor
    """(N,): what the window changes in it"""


@dataclass(frozen=True, eq=False)
class Routing:
    """The routing request of one batch: a form, and the weights that it applies to attention.

    All decoder layers share it.
    """

    form: RoutingForm
    weights: Tensor
    """(B, Q, M)"""
    groups: TokenGroups
    """the M groups"""
    windows: tuple[Windows, ...] = ()
    """windows with a bias of their own"""
    pair_bias: PairBias | None = None
    """the bias in these windows; ``None`` without windows"""

    @property
    def group_bias(self) -> Tensor | None:
        """See :meth:`RoutingForm.group_bias`."""
        return self.form.group_bias(self.weights)

    def shares(self, lse: Tensor, valid_groups: Tensor) -> Tensor:
        """See :meth:`RoutingForm.shares`."""
        return self.form.shares(self.weights, lse, valid_groups)


class RoutingForm(nn.Module):
    """Base class of the forms in which a router's weights act on cross-attention.

    Args:
        num_heads: H of the decoder; the router gives it.
    """

    def __init__(self, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        # A learning rate for the scales fits every form, also one that has none.
        self.register_parameter('bias_scale', None)

    @property
    def learns_scales(self) -> bool:
        """Whether training needs :meth:`clamp_scales_` after each optimizer step."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def forward(
        self, weights: Tensor, *, groups: TokenGroups, windows: Sequence[Windows] = ()
    ) -> Routing:
        """The request for a batch.

        Args:
            weights: (B, Q, M), LiDAR first; of each camera or of all cameras together.
            groups: the M groups of tokens.
            windows: of every sensor that is present.
        """
        return Routing(self, weights, groups)

    def shares(self, weights: Tensor, lse: Tensor, valid_groups: Tensor) -> Tensor:
        """(B, H, Q, M): share of each group in the output, zero for a group without a token.

        Args:
            weights: (B, Q, M).
            lse: (B, H, Q, M), log-sum-exp of the logits of each group; any finite number for a
                group without a token.
            valid_groups: (B or 1, 1, 1, M), bool: groups of which a sample has a token.
        """
        return _masked_softmax(lse + self.group_bias(weights)[:, None], valid_groups)

    def attention_weights(
        self, routing: Routing, logits: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        """(B, H, Q, K): reference implementation of the form on all (query, token) pairs.

        Args:
            routing: the request.
            logits: (B, H, Q, K), the lowest number for the tokens that a sample lacks.
            token_mask: (B, K), bool: tokens that a sample has; ``None`` for all.
        """
        bias = routing.group_bias[..., routing.groups.index]
        return (logits + bias[:, None].to(logits)).softmax(dim=-1)

    def group_bias(self, weights: Tensor) -> Tensor | None:
        """(B, Q, M) bias on the logits; ``None`` if the form is not a bias.

        A form that is not a bias overrides :meth:`shares` and :meth:`attention_weights`.
        """
        return None

    def clamped_queries(self, routing: Routing) -> Tensor | None:
        """(B, Q), bool: whether any bias of a query is at its limit; ``None`` without a limit.

        At the limit a bias has no gradient, and the router nothing to learn from it.
        """
        return None

    def log_values(self) -> dict[str, float]:
        """Scales, and other learned numbers of the form, by their name in the log."""
        return {}

    def scales_at_limit(self) -> dict[str, float]:
        """The scales that lie at an end of their range."""
        return {}

    def clamp_scales_(self) -> None:
        """Put the learned scales back into their range; to be called after each optimizer step.

        A clamp in the forward pass would give a scale at its limit no gradient.
        """


class GateRouting(RoutingForm):
    """``out = sum_m (1 + w_m) p_m o_m``: a gate on the output of each group.

    p_m is the share of attention on the group, o_m the output of attention within it. It has no
    parameters, and acts also where the logits of the sensors lie far apart.

    Args:
        num_heads: H of the decoder; the router gives it.
    """

    def shares(self, weights: Tensor, lse: Tensor, valid_groups: Tensor) -> Tensor:
        return _masked_softmax(lse, valid_groups) * (1 + weights)[:, None]

    def attention_weights(
        self, routing: Routing, logits: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        return logits.softmax(dim=-1) * (1 + routing.weights)[..., routing.groups.index][:, None]


class _ScaledRouting(RoutingForm):
    """A form whose weights are scaled to biases: ``clamp(s_m w_m, -limit, limit)``.

    ``bias_scale`` has a row for each scope, with a scale for LiDAR and one for cameras.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        scope: str = 'global',
        initial_scale: float = 2.5,
        scale_range: tuple[float, float] = (0.5, 5.0),
        limit: float = 5.0,
    ) -> None:
        super().__init__(num_heads=num_heads)
        if scope not in SCOPES:
            raise ValueError(f'scope is {scope!r}; it must be one of {list(SCOPES)}')
        low, high = scale_range
        if not 0 < low <= initial_scale <= high:
            raise ValueError(
                f'initial_scale is {initial_scale}; it must lie within scale_range {scale_range}, '
                'which must be above 0'
            )
        if limit <= 0:
            raise ValueError(f'limit is {limit}; it must be above 0')
        self.scopes = SCOPES[scope]
        self.scale_range = (low, high)
        self.limit = limit
        self.bias_scale = nn.Parameter(torch.full((len(self.scopes), 2), float(initial_scale)))

    @torch.no_grad()
    def clamp_scales_(self) -> None:
        self.bias_scale.clamp_(*self.scale_range)

    def log_values(self) -> dict[str, float]:
        return {
            f'scale_{scope}_{sensor}': value
            for scope, row in zip(self.scopes, self.bias_scale.tolist(), strict=True)
            for sensor, value in zip(MODALITIES, row, strict=True)
        }

    def scales_at_limit(self) -> dict[str, float]:
        return {
            name: value
            for name, value in self.log_values().items()
            if name.startswith('scale_')
            and any(math.isclose(value, end, rel_tol=1e-6) for end in self.scale_range)
        }

    def clamped_queries(self, routing: Routing) -> Tensor:
        bias = self._strength('global', routing.weights)
        return (bias.abs() >= CLAMPED_FROM * self.limit).any(dim=-1)

    def _strength(self, scope: str, weights: Tensor) -> Tensor:
        """(B, Q, M) scaled weights before the clamp; zero for a scope that is not in use."""
        if scope not in self.scopes:
            return torch.zeros_like(weights)
        sensor = torch.arange(weights.shape[-1], device=weights.device).clamp(max=1)
        return weights * self.bias_scale[self.scopes.index(scope)][sensor]

    def _clamp(self, bias: Tensor) -> Tensor:
        return bias.clamp(-self.limit, self.limit)


class BiasRouting(_ScaledRouting):
    """``bias(q, k) = clamp(s_m w_m(q) window_m(q, k), -limit, limit)`` on the logits.

    m is the group of token k. A bias moves little where the logits of the sensors lie far apart,
    as those of a trained CMT do.

    Args:
        num_heads: H of the decoder; the router gives it.
        scope: ``global`` for all tokens of a group (the window is 1), ``local`` for those in the
            query's windows (the window is 1 inside, else 0), ``both`` for the sum of the two, with
            a scale each.
        initial_scale: initial value of the scales that convert weights into biases.
        scale_range: least and greatest scale.
        limit: largest magnitude of a bias.

    Raises:
        ValueError: an unknown scope, or a number out of its range.
    """

    def forward(
        self, weights: Tensor, *, groups: TokenGroups, windows: Sequence[Windows] = ()
    ) -> Routing:
        if 'local' not in self.scopes or not windows:
            return Routing(self, weights, groups)
        # All layers share the pairs. The first layer that needs them must not build them: under
        # activation checkpointing it would build them again.
        pair_bias = self._pair_bias(weights, groups, windows)
        return Routing(self, weights, groups, tuple(windows), pair_bias)

    def group_bias(self, weights: Tensor) -> Tensor:
        return self._clamp(self._strength('global', weights))

    def attention_weights(
        self, routing: Routing, logits: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        return (logits + self.dense_bias(routing)[:, None].to(logits)).softmax(dim=-1)

    def dense_bias(self, routing: Routing) -> Tensor:
        """(B, Q, K): the bias as a tensor, which the reference adds to the logits."""
        bias = self._strength('global', routing.weights)[..., routing.groups.index]
        for window in routing.windows:
            place = (window.sample[:, None], window.query[:, None], window.token)
            bias = bias.index_put(place, self._in_window(routing.weights, window), accumulate=True)
        return self._clamp(bias)

    def clamped_queries(self, routing: Routing) -> Tensor:
        clamped = super().clamped_queries(routing)
        if routing.pair_bias is None:
            return clamped
        pairs, base, difference = routing.pair_bias
        at_limit = (base + difference).abs() >= CLAMPED_FROM * self.limit
        hits = torch.zeros(clamped.numel(), device=clamped.device)
        return clamped | (hits.index_add(0, pairs.row, at_limit.float()) > 0).view_as(clamped)

    def _in_window(self, weights: Tensor, window: Windows) -> Tensor:
        """(P, W): scaled weight of each window's query and group, zero outside of the map."""
        group = window.group.clamp(max=weights.shape[-1] - 1)
        strength = self._strength('local', weights)[window.sample, window.query, group]
        return strength[:, None] * window.inside

    def _pair_bias(
        self, weights: Tensor, groups: TokenGroups, windows: Sequence[Windows]
    ) -> PairBias:
        global_bias = self._strength('global', weights)
        parts = []
        for window in windows:
            sample, query = (
                index[:, None].expand_as(window.token) for index in (window.sample, window.query)
            )
            base = global_bias[sample, query, groups.index[window.token]]
            total = self._clamp(base + self._in_window(weights, window))
            base = self._clamp(base)
            parts.append([x.flatten() for x in (sample, query, window.token, base, total - base)])
        sample, query, token, base, difference = (torch.cat(x) for x in zip(*parts, strict=True))
        shape = (*weights.shape[:2], groups.num_tokens)
        pairs = SparsePairs.of(sample, query, token, shape=shape)
        return PairBias(pairs, base[pairs.order], difference[pairs.order])


class MixRouting(_ScaledRouting):
    """``out = sum_m pi_m o_m`` with ``pi = softmax_m(lse_m / temperature + bias_m)``.

    lse_m is the log-sum-exp of the group's logits, o_m the output of attention within it, and
    ``bias_m = clamp(s_m w_m, -limit, limit)``. The temperature, learned from 1 upwards for each
    head, narrows gaps between groups that are too wide for a bias to matter.

    Args:
        num_heads: H of the decoder; the router gives it.
        initial_scale: initial value of the scales that convert weights into biases.
        scale_range: least and greatest scale.
        limit: largest magnitude of a bias.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        initial_scale: float = 2.5,
        scale_range: tuple[float, float] = (0.5, 5.0),
        limit: float = 5.0,
    ) -> None:
        super().__init__(
            num_heads=num_heads,
            initial_scale=initial_scale,
            scale_range=scale_range,
            limit=limit,
        )
        self.temperature = nn.Parameter(torch.ones(num_heads))

    @torch.no_grad()
    def clamp_scales_(self) -> None:
        super().clamp_scales_()
        self.temperature.clamp_(min=1)

    def log_values(self) -> dict[str, float]:
        return {**super().log_values(), 'temperature': self.temperature.mean().item()}

    def shares(self, weights: Tensor, lse: Tensor, valid_groups: Tensor) -> Tensor:
        bias = self._clamp(self._strength('global', weights))[:, None]
        return _masked_softmax(lse / self.temperature[:, None, None] + bias, valid_groups)

    def attention_weights(
        self, routing: Routing, logits: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        by_group = logits.split(routing.groups.sizes, dim=-1)
        lse = torch.stack([own.logsumexp(dim=-1) for own in by_group], dim=-1)
        # A group without tokens has no share, whatever its number; NaN must stay visible.
        lse = lse.masked_fill(lse.isneginf(), 0)
        shares = routing.shares(lse, routing.groups.valid(token_mask))
        weights = [
            own.softmax(dim=-1) * share[..., None]
            for own, share in zip(by_group, shares.unbind(dim=-1), strict=True)
        ]
        return torch.cat(weights, dim=-1)


def _masked_softmax(logits: Tensor, valid_groups: Tensor) -> Tensor:
    return logits.masked_fill(~valid_groups, -torch.inf).softmax(dim=-1)
