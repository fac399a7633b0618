"""Counts the places where a GPU would make Python wait, on a machine that has none."""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Functions that copy to the host, or whose output has a size that is read from the device.
_READS = {
    Tensor.__bool__,
    Tensor.__float__,
    Tensor.__index__,
    Tensor.__int__,
    Tensor.cpu,
    Tensor.item,
    Tensor.masked_select,
    Tensor.nonzero,
    Tensor.numpy,
    Tensor.tolist,
    Tensor.unique,
    torch.bincount,
    torch.linalg.inv,
    torch.masked_select,
    torch.nonzero,
    torch.unique,
}
# Functions that copy numbers of Python's to the device, and wait until the copy is done.
_COPIES = {Tensor.new_tensor, torch.as_tensor, torch.tensor}


class DeviceWaits(TorchFunctionMode):
    """Notes the functions that wait for the device while the mode is on.

    On the CPU nothing waits, so there the functions that read a tensor count. Copies to the device
    count on the ``meta`` device, whose tensors have no values to read.

    Attributes:
        names: of the functions that were called, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self._waits(func, args, kwargs or {}, out):
            self.names.append(func.__name__)
        return out

    @staticmethod
    def _waits(func, args: tuple, kwargs: dict, out: object) -> bool:
        if func in _READS:
            return True
        if func in _COPIES:
            return out.device.type != 'cpu'
        if func is Tensor.to:
            copied = isinstance(out, Tensor) and out.device != args[0].device
            return copied and not kwargs.get('non_blocking')
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            keys = args[1] if isinstance(args[1], tuple) else (args[1],)
            return any(isinstance(key, list) or _is_mask(key) for key in keys)
        if func in (torch.repeat_interleave, Tensor.repeat_interleave):
            return 'output_size' not in kwargs
        return False


def _is_mask(key: object) -> bool:
    return isinstance(key, Tensor) and key.dtype == torch.bool
