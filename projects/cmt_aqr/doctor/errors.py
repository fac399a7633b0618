"""Relative errors of tensors, and the rounding of a data type."""

import torch
from torch import Tensor


def row_error(found: Tensor, expected: Tensor) -> float:
    """``max_i |found_i - expected_i| / (|expected_i| + rms)`` over the rows (last dimension).

    ``| |`` is the Euclidean norm of a row and ``rms`` the root mean square of the norms of
    ``expected``: one wrong row is seen among any number of rows, and a row near zero needs no
    relative precision.

    Args:
        found: (..., C); a NaN gives NaN.
        expected: (..., C).

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
