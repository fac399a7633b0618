"""Result of a check, and the errors that it compares with their limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


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
        """Error as a share of its limit; infinite for NaN, and for any error if the limit is 0."""
        if self.error == 0:
            return 0.0
        if math.isnan(self.error) or self.allowed == 0:
            return math.inf
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


def row_error(found: Tensor, expected: Tensor) -> float:
    """``max_i |found_i - expected_i| / (|expected_i| + rms)`` over the rows (last dimension).

    ``| |`` is the Euclidean norm of a row and ``rms`` the root mean square of the norms of
    ``expected``: one wrong row is seen among any number of rows, and a row near zero needs no
    relative precision. A NaN gives NaN.

    Raises:
        ValueError: the shapes differ.
    """
    if found.shape != expected.shape:
        raise ValueError(f'shape {tuple(found.shape)}; expected {tuple(expected.shape)}')
    expected = expected.double()
    sizes = expected.norm(dim=-1)
    mean_size = sizes.square().mean().sqrt()
    smallest = torch.finfo(torch.float64).tiny
    return ((found.double() - expected).norm(dim=-1) / (sizes + mean_size + smallest)).max().item()


def norm_error(found: Tensor, expected: Tensor) -> float:
    """``|found - expected| / |expected|`` with Euclidean norms of the whole tensors.

    If ``expected`` is all zeros, any other ``found`` gives a huge error.
    """
    expected = expected.double()
    smallest = torch.finfo(torch.float64).tiny
    return ((found.double() - expected).norm() / expected.norm().clamp(min=smallest)).item()


def rounding(dtype: torch.dtype) -> float:
    """Distance from 1 to the next larger number of the type, twice the largest rounding error."""
    return torch.finfo(dtype).eps


def name_of(dtype: torch.dtype) -> str:
    """'float32' and so on."""
    return str(dtype).removeprefix('torch.')
