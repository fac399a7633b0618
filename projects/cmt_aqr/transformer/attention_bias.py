"""What a router asks of attention, without a number for every pair of a query and a token.

Shapes: B batch, Q queries, K tokens, M token groups, P windows, W cells of a window.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class WindowBias(NamedTuple):
    """What is added to the bias in the windows of queries on the maps of one sensor.

    A token stands once at most in the windows of a query, save where nothing is added to it.
    """

    sample: Tensor
    """(P,): sample of the window's query"""
    query: Tensor
    """(P,): the query"""
    token: Tensor
    """(P, W): the tokens; any valid one for a cell outside of the map"""
    added: Tensor
    """(P, W): zero for a cell outside of the map"""


class AttentionBias(NamedTuple):
    """``bias(q, k) = clamp(everywhere(q, group of k) + added(q, k), -limit, limit)``."""

    everywhere: Tensor
    """(B, Q, M): for all tokens of a group"""
    groups: Tensor
    """(K,): group of every token"""
    windows: tuple[WindowBias, ...]
    """where something is added; none for a bias by group alone"""
    limit: float
    """of the sum of both, either sign"""

    def of_groups(self) -> Tensor:
        """(B, Q, M): the bias outside of all windows."""
        return self.everywhere.clamp(-self.limit, self.limit)

    def dense(self) -> Tensor:
        """(B, Q, K): the plain form, against which every other is tested."""
        bias = self.everywhere[..., self.groups]
        for window in self.windows:
            place = (window.sample[:, None], window.query[:, None], window.token)
            bias = bias.index_put(place, window.added, accumulate=True)
        return bias.clamp(-self.limit, self.limit)
