"""Numbers of the host on their way to the device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_device(
    values: Sequence | np.ndarray | Tensor, like: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Copy of host values on the device of ``like``, made without waiting for that device.

    ``like.new_tensor(values)`` and ``torch.tensor(values, device=like.device)`` hold the host until
    CUDA has done all that is queued: their copy is a blocking one.

    Args:
        values: numbers, an array or a tensor on the host.
        like: gives the device.
        dtype: of the result; ``None`` takes that of ``like``.
    """
    host = torch.as_tensor(values, dtype=dtype or like.dtype)
    return host.to(like.device, non_blocking=True)
