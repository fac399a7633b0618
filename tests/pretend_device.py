"""A device that exists on a CPU, for tests of what only CUDA would show.

Its tensors say that they lie on another device and compute on the CPU. Like CUDA it refuses to mix
tensors of the host with its own, and it notes every place in which the host would wait for it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from projects.cmt_aqr.transformer import kernels

# Of the devices that torch knows, the one that needs no driver; nothing here is without data.
DEVICE = torch.device('meta')
READS = ('_local_scalar_dense', 'nonzero', 'masked_select', '_unique2', 'unique_dim', 'equal')
PACKAGES = ('projects/cmt_aqr/', 'mmengine/', 'mmdet/', 'mmdet3d/', 'mmcv/')


class DeviceTensor(torch.Tensor):
    """A tensor of the device; ``host`` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> DeviceTensor:
        layout = dict(strides=host.stride(), storage_offset=host.storage_offset())
        return torch.Tensor._make_wrapper_subclass(
            cls, host.size(), dtype=host.dtype, device=DEVICE, **layout
        )

    def __init__(self, host: torch.Tensor) -> None:
        self.host = host

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f'{func}: tensors of the device are used outside of PretendDevice')


class PretendDevice(TorchDispatchMode):
    """While it is entered the device exists; ``waits`` counts the host's waits by function."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._others = ExitStack()

    def __enter__(self) -> PretendDevice:
        self._others.enter_context(_Functions())
        for name in ('autocast', 'is_autocast_enabled', 'get_autocast_dtype'):
            self._others.enter_context(
                mock.patch.object(torch, name, _on_cpu(getattr(torch, name)))
            )
        # The device computes on the CPU, also in the kernels of attention.
        cpu_kernel = {DEVICE.type: kernels.KERNELS['cpu']}
        self._others.enter_context(mock.patch.dict(kernels.KERNELS, cpu_kernel))
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._others.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        on_device = any(isinstance(leaf, DeviceTensor) for leaf in leaves)
        to = kwargs.get('device')
        to = None if to is None else torch.device(to)
        if func is torch.ops.aten._to_copy.default and to is not None:
            if not (on_device and to == DEVICE) and (on_device or not kwargs.get('non_blocking')):
                self._note(on_device or to == DEVICE)
        elif on_device:
            self._note(func._schema.name.split('::')[1] in READS or _has_mask(func, args))
            _refuse_mixed(func, args, leaves)
        if to == DEVICE:
            kwargs = {**kwargs, 'device': torch.device('cpu')}
        host_args, host_kwargs = tree_map(_host, (args, kwargs))
        out = func(*host_args, **host_kwargs)
        if to is not None and to != DEVICE:
            return out
        if on_device or to == DEVICE:
            out = tree_map(lambda x: DeviceTensor(x) if isinstance(x, torch.Tensor) else x, out)
        return return_and_correct_aliasing(func, args, kwargs, out) if on_device else out

    def _note(self, waits: bool) -> None:
        if waits:
            self.waits[_place()] += 1


class _Functions(TorchFunctionMode):
    """What torch does in C++ past the dispatcher, done through it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            device = kwargs.pop('device', None)
            if device is None and func is torch.Tensor.new_tensor:
                device = args[0].device
                kwargs.setdefault('dtype', args[0].dtype)
                args = args[1:]
                func = torch.tensor
            if device is None or torch.device(device) != DEVICE:
                return func(*args, **kwargs)
            return func(*args, **kwargs).to(DEVICE)
        if func is torch.Tensor.tolist and isinstance(args[0], DeviceTensor):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


def _on_cpu(function: Callable) -> Callable:
    """The function, with the type of the device replaced by that of the CPU."""

    def call(device_type: str, *args, **kwargs):
        device_type = 'cpu' if device_type == DEVICE.type else device_type
        return function(device_type, *args, **kwargs)

    return call


def _host(value: object) -> object:
    return value.host if isinstance(value, DeviceTensor) else value


def _has_mask(func, args: tuple) -> bool:
    """Whether a boolean mask is turned into indices, whose number must be known."""
    if not func._schema.name.startswith(('aten::index', 'aten::_index_put')):
        return False
    indices = args[1] if isinstance(args[1], list | tuple) else ()
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _refuse_mixed(func, args: tuple, leaves: list) -> None:
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor) and not isinstance(leaf, DeviceTensor) and leaf.dim():
            raise RuntimeError(f'{func}: a tensor {tuple(leaf.shape)} lies on the host')


def _place() -> str:
    """The function of this or a neighbouring package that made the host wait."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        for package in PACKAGES:
            if f'/{package}' in path:
                return f'{path.rsplit(package, 1)[1]}:{frame.f_code.co_name}'
        frame = frame.f_back
    return 'elsewhere'
