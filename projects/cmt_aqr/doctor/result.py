"""Result of a check."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Comparison(NamedTuple):
    """Error of one quantity and its limit."""

    name: str
    error: float
    """NaN if the quantity has NaN"""
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the error is within its limit; NaN never is."""
        return self.error <= self.allowed

    @property
    def share(self) -> float:
        """Error as a share of its limit; infinite for NaN."""
        if math.isnan(self.error):
            return math.inf
        if self.allowed == 0:
            return math.inf if self.error else 0.0
        return self.error / self.allowed


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a check, which passes if all comparisons hold and there is no fault."""

    what: str
    """sizes and types for the table"""
    comparisons: Sequence[Comparison] = ()
    faults: Sequence[str] = ()
    """failures without a number, each with its remedy"""
    skipped: bool = False
    """whether this machine cannot run the check; ``what`` has the reason"""

    @property
    def passed(self) -> bool:
        """Whether the check passes; a skipped one does."""
        return not self.faults and all(comparison.holds for comparison in self.comparisons)

    @property
    def worst(self) -> Comparison | None:
        """The comparison closest to or furthest beyond its limit; ``None`` without comparisons."""
        return max(self.comparisons, key=lambda comparison: comparison.share, default=None)
