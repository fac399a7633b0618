"""Mixed precision: float32 islands under autocast, and bfloat16 training on any device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.utils import apply_to
from torch import Tensor, nn

_HALF = (torch.float16, torch.bfloat16)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The type in which autocast computes on a device; ``None`` if autocast is off."""
    if not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def in_float32(function: Callable, *inputs: Any, device_type: str) -> Any:
    """The result of ``function`` for ``inputs`` in float32, also under autocast.

    Args:
        function: function or module.
        inputs: half-precision tensors among them, or in their lists, tuples and dicts, are
            converted to float32.
        device_type: device type of the computation, such as 'cuda'.
    """
    with torch.autocast(device_type, enabled=False):
        return function(*apply_to(inputs, _is_half, Tensor.float))


def _is_half(value: Any) -> bool:
    return torch.is_tensor(value) and value.dtype in _HALF


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Optimizer wrapper that trains in bfloat16 autocast on any device.

    Weights and gradients stay in float32. bfloat16 has the range of float32, so the loss needs no
    scaling. mmengine's ``AmpOptimWrapper`` requires a GPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass."""
        device_type = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type, torch.bfloat16):
            yield
