"""Copies of host values to the device without waiting for it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_device(
    values: Sequence | np.ndarray | Tensor, like: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Copy of host values on the device of ``like``, made without waiting for the device.

    The copies of ``like.new_tensor(values)`` and ``torch.tensor(values, device=like.device)`` block
    the host until CUDA has finished all queued work.

    Args:
        values: numbers, or an array or tensor on the host.
        like: tensor on the target device.
        dtype: type of the result; ``None`` for that of ``like``.
    """
    host = torch.as_tensor(values, dtype=dtype or like.dtype)
    return host.to(like.device, non_blocking=True)
