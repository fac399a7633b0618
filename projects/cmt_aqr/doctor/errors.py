"""Errors of tensors against a reference, and what the rounding of a data type allows."""

import torch
from torch import Tensor


def row_error(found: Tensor, expected: Tensor) -> float:
    """The largest error of a row, as a share of the row's size and the mean size of all rows.

    It is ``max_i |found_i - expected_i| / (|expected_i| + rms)``, with Euclidean norms of the rows
    (the last dimension) and the root mean square ``rms`` of those of ``expected``. A row that is
    wrong shows whatever the number of rows, and a row of nearly zero needs no relative precision.

    Args:
        found: (..., C); not a number gives an error that is not one either.
        expected: (..., C).

    Raises:
        ValueError: the shapes differ, so that rows would be missing.
    """
    if found.shape != expected.shape:
        raise ValueError(f'shape {tuple(found.shape)}; expected {tuple(expected.shape)}')
    expected = expected.double()
    sizes = expected.norm(dim=-1)
    mean_size = sizes.square().mean().sqrt()
    smallest = torch.finfo(torch.float64).tiny
    return ((found.double() - expected).norm(dim=-1) / (sizes + mean_size + smallest)).max().item()


def norm_error(found: Tensor, expected: Tensor) -> float:
    """``|found - expected| / |expected|``, with Euclidean norms of the whole tensors.

    Where all of ``expected`` is zero, so must be all of ``found``.
    """
    expected = expected.double()
    smallest = torch.finfo(torch.float64).tiny
    return ((found.double() - expected).norm() / expected.norm().clamp(min=smallest)).item()


def rounding(dtype: torch.dtype) -> float:
    """Distance from 1 to the next larger number of the type: twice the largest rounding error."""
    return torch.finfo(dtype).eps
