"""What a check found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Comparison(NamedTuple):
    """One quantity against its reference."""

    name: str
    error: float
    """not a number where the quantity is not"""
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the error is allowed; an error that is not a number never is."""
        return self.error <= self.allowed

    @property
    def share(self) -> float:
        """Error as a share of what is allowed; infinite where it is not a number."""
        if math.isnan(self.error):
            return math.inf
        if self.allowed == 0:
            return math.inf if self.error else 0.0
        return self.error / self.allowed


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a check found; it passes if all comparisons hold and there is no fault."""

    what: str
    """what was checked, for the table"""
    comparisons: Sequence[Comparison] = ()
    faults: Sequence[str] = ()
    """what is wrong and has no number, each with its remedy"""
    skipped: bool = False
    """whether this machine cannot run the check, for the reason in ``what``"""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; a skipped check passes."""
        return not self.faults and all(comparison.holds for comparison in self.comparisons)

    @property
    def worst(self) -> Comparison | None:
        """The comparison with the largest share of its allowed error; ``None`` without any."""
        return max(self.comparisons, key=lambda comparison: comparison.share, default=None)
