"""What a GPU would have to be waited for, as seen on any device."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations whose result, or its shape, the host needs from the device. Copies of host numbers to
# the device are seen by `pretend_device.py`.
READS = {
    '_local_scalar_dense',
    '_unique2',
    'bincount',
    'equal',
    'masked_select',
    'nonzero',
    'unique_consecutive',
    'unique_dim',
}


class DeviceReads(TorchDispatchMode):
    """Counts by name what the host would have to wait for.

    Where all is on ``device``, a tensor of more than one number that is elsewhere is an error.
    """

    def __init__(self, device=None):
        super().__init__()
        self.device = device and torch.device(device)
        self.count = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in READS or (name == 'repeat_interleave' and kwargs.get('output_size') is None):
            self.count[name] += 1
        if name.lstrip('_').startswith('index') and len(args) > 1:
            masks = [x for x in tree_leaves(args[1]) if is_mask(x)]
            self.count['index by a mask'] += len(masks)
        out = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors if x.dim()}
        self.count['copy'] += len(devices) > 1
        if self.device is not None and devices - {self.device.type}:
            raise AssertionError(f'{func} works on {devices}, not on {self.device} alone')
        return out

    @property
    def reads(self):
        """All that there were."""
        return {name: count for name, count in self.count.items() if count}


def is_mask(x):
    return isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8)
