"""Routing requests to cross-attention, in a form that never materialises a (Q, K) tensor.

There are three forms. A bias is added to the logits; a gate scales the share of each group of
tokens in the output; a mix sets these shares. Each has a neutral value that leaves attention
unchanged: bias 0; gain 1; bias 0 with temperature 1.

Shapes: B batch, H heads, Q queries, K tokens, M token groups, P windows, W cells of a window, N
pairs of a query and a token in its windows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .pairs import Pairs
from .token_groups import TokenGroups


class WindowBias(NamedTuple):
    """Bias inside the windows of queries on the maps of one sensor.

    A token occurs at most once in the windows of a query, except where ``added`` is the constant 0.
    """

    sample: Tensor
    """(P,): sample of the window's query"""
    query: Tensor
    """(P,): the query"""
    token: Tensor
    """(P, W): the tokens; any valid index for a cell outside of the map"""
    added: Tensor
    """(P, W): zero for a cell outside of the map"""


class PairBias(NamedTuple):
    """Bias of all windows as a flat list of (query, token) pairs."""

    pairs: Pairs
    base: Tensor
    """(N,), in the order of the pairs: clamped bias of the token's group"""
    further: Tensor
    """(N,): difference that the window makes to it"""


@dataclass(frozen=True, eq=False)
class AttentionBias:
    """``bias(q, k) = clamp(everywhere(q, group of k) + added(q, k), -limit, limit)``."""

    everywhere: Tensor
    """(B, Q, M): bias of all tokens of a group"""
    groups: TokenGroups
    """the M groups"""
    windows: tuple[WindowBias, ...]
    """windows with a bias of their own; empty for a bias by group alone"""
    limit: float
    """largest magnitude of the sum of both"""
    in_windows: PairBias | None = field(init=False, repr=False)
    """the windows as pairs; ``None`` without windows"""

    def __post_init__(self) -> None:
        # All layers share the pairs. The first layer that needs them must not build them: under
        # activation checkpointing it would build them again.
        object.__setattr__(self, 'in_windows', self._pair_up() if self.windows else None)

    def of_groups(self) -> Tensor:
        """(B, Q, M): the bias outside of all windows."""
        return self.everywhere.clamp(-self.limit, self.limit)

    def logits(self, lse: Tensor, there: Tensor) -> Tensor:
        """Log-sum-exp of each group under the bias; see :meth:`AttentionMix.shares`."""
        return (lse + self.of_groups()[:, None]).masked_fill(~there, -torch.inf)

    def shares(self, lse: Tensor, there: Tensor) -> Tensor:
        """Share of each group in the output; see :meth:`AttentionMix.shares`."""
        return self.logits(lse, there).softmax(dim=-1)

    def dense(self) -> Tensor:
        """(B, Q, K): the bias as a tensor, the reference of all tests."""
        bias = self.everywhere[..., self.groups.index]
        for window in self.windows:
            place = (window.sample[:, None], window.query[:, None], window.token)
            bias = bias.index_put(place, window.added, accumulate=True)
        return bias.clamp(-self.limit, self.limit)

    def _pair_up(self) -> PairBias:
        parts = []
        for window in self.windows:
            sample, query = (
                index[:, None].expand_as(window.token) for index in (window.sample, window.query)
            )
            base = self.everywhere[sample, query, self.groups.index[window.token]]
            limited = (base + window.added).clamp(-self.limit, self.limit)
            base = base.clamp(-self.limit, self.limit)
            parts.append([x.flatten() for x in (sample, query, window.token, base, limited - base)])
        sample, query, token, base, further = (torch.cat(part) for part in zip(*parts, strict=True))
        shape = (*self.everywhere.shape[:2], self.groups.num_tokens)
        pairs = Pairs.of(sample, query, token, shape=shape)
        return PairBias(pairs, base[pairs.order], further[pairs.order])


class AttentionGate(NamedTuple):
    """``out = sum_m g_m p_m o_m``: the share p of each group in the output, scaled by its gain g.

    p_m is the share of attention on the group, o_m the output of attention within it.
    """

    gains: Tensor
    """(B, Q, M)"""
    groups: TokenGroups
    """the M groups"""

    def shares(self, lse: Tensor, there: Tensor) -> Tensor:
        """Share of each group in the output; see :meth:`AttentionMix.shares`."""
        return _softmax_over(lse, there) * self.gains[:, None]


class AttentionMix(NamedTuple):
    """``out = sum_m pi_m o_m`` with ``pi = softmax_m(lse_m / temperature + bias_m)``.

    lse_m is the log-sum-exp of the group's logits, o_m the output of attention within it. A
    temperature above 1 narrows gaps between groups that are too wide for a bias to matter.
    """

    bias: Tensor
    """(B, Q, M)"""
    groups: TokenGroups
    """the M groups"""
    temperature: Tensor
    """(H,), at least 1"""
    limit: float
    """largest magnitude of a bias"""

    def shares(self, lse: Tensor, there: Tensor) -> Tensor:
        """Share of each group in the output.

        Args:
            lse: (B, H, Q, M), log-sum-exp of the logits of each group; any finite number for a
                group without a token.
            there: (B or 1, 1, 1, M), bool: groups of which a sample has a token.

        Returns:
            (B, H, Q, M), zero for a group without a token.
        """
        bias = self.bias.clamp(-self.limit, self.limit)[:, None]
        return _softmax_over(lse / self.temperature[:, None, None] + bias, there)


def _softmax_over(logits: Tensor, there: Tensor) -> Tensor:
    return logits.masked_fill(~there, -torch.inf).softmax(dim=-1)


Routing: TypeAlias = AttentionBias | AttentionGate | AttentionMix
"""Any of the three forms."""
