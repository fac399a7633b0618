"""Mixed precision: what stays in float32 under autocast, and training in it on any device."""

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
    """The type that autocast computes in on a device; ``None`` where autocast is off."""
    if not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def in_float32(function: Callable, *inputs: Any, device_type: str) -> Any:
    """What ``function`` returns for ``inputs`` in full precision, also under autocast.

    Args:
        function: may be a module.
        inputs: tensors in half precision, also those in lists, tuples and dicts, become float32.
        device_type: where it computes, such as 'cuda'.
    """
    with torch.autocast(device_type, enabled=False):
        return function(*apply_to(inputs, _is_half, Tensor.float))


def _is_half(value: Any) -> bool:
    return torch.is_tensor(value) and value.dtype in _HALF


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Training in bfloat16 by autocast on any device, with weights and gradients in float32.

    bfloat16 has the range of float32, so the loss needs no scale. mmengine's ``AmpOptimWrapper``
    refuses a machine without a GPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass."""
        device_type = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type, torch.bfloat16):
            yield
