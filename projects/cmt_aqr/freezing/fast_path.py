"""Optimised copies that compute modules which are frozen or only predict.

A copy has its norms folded into the convolutions and a memory layout that suits the hardware. In
this form its outputs equal the module's up to rounding (1e-4 of the largest value in float32).
Lower precision and ``torch.compile`` are options.

The copy is not a submodule. State dict, checkpoints, averages, optimizer, distributed training and
audit see only the module itself.
"""

import copy
import logging
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.utils import apply_to
from torch import Tensor, nn

from .folding import SPARSE, fold_norms

DTYPES = {None: None, 'float16': torch.float16, 'bfloat16': torch.bfloat16}

# A norm folded into the wrong convolution changes values by their own size. Rounding changes them
# by 1e-6, and by 1e-3 on a GPU that computes convolutions in TF32.
_LARGEST_CHANGE = 1e-2
# Deep networks with random weights magnify rounding, an untrained VoVNet-99 to 0.5 % and more. The
# rounding of all layers may change the output by this factor more than that of the input.
_LARGEST_MAGNIFICATION = 100


class FastPath:
    """Replaces ``module.forward`` by an optimised copy while the module is frozen or only predicts.

    The copy computes if no parameter requires a gradient, every submodule is in evaluation mode and
    no input requires a gradient. Otherwise the module itself computes. Once a part of the module
    trains, the copy is dropped; it returns when everything is frozen again.
    :func:`~projects.cmt_aqr.inference.fold_for_inference` lets the copy of a trainable module
    compute as well, while gradients are disabled.

    The copy is made at the first call, and renewed at the next call after a tensor of the module
    was written to, replaced or moved. PyTorch does not count writes through ``.data``, such as
    those of mmengine's ``EMAHook`` around a validation: call :func:`renew_fast_paths` after them.
    At every renewal the output of the folded copy is compared with that of the module; if they
    differ by more than rounding can explain, the copy is abandoned with a warning.

    The copy has its own folded kernels and biases, and its own version of parameters whose layout
    or precision differs; it shares the rest with the module. Their size is logged. Deep copies and
    pickles of the module start without a copy.

    Args:
        module: its inputs and outputs are tensors, or lists, tuples and dicts of them. A module
            with sparse convolutions has its norms folded, but keeps precision, layout and eager
            execution.
        name: name of the module in the log.
        dtype: 'float16' or 'bfloat16' to compute in this precision regardless of autocast; outputs
            have the type of the input. ``None`` keeps the precision of the module.
        compile: whether to compile the copy with ``torch.compile``.

    Attributes:
        inference: whether the copy also computes while parameters require gradients, provided that
            gradients are disabled.

    Raises:
        ValueError: unknown `dtype`.
    """

    def __init__(
        self, module: nn.Module, *, name: str, dtype: str | None = None, compile: bool = False
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(
                f'fast_path: dtype {dtype!r} must be one of {", ".join(map(repr, DTYPES))}'
            )
        self.module = module
        self.name = name
        self.is_dense = not any(isinstance(m, SPARSE) for m in module.modules())
        self.dtype = DTYPES[dtype] if self.is_dense else None
        self.compile = compile and self.is_dense
        self.inference = False
        self.abandoned = False
        self.drop()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output of ``module.forward``."""
        backward = torch.is_grad_enabled() and any(t.requires_grad for t in _floats((args, kwargs)))
        if self._trains() or any(module.training for module in self.module.modules()):
            self.drop()
        elif not self.abandoned and not backward:
            state = tensor_state(self.module)
            if state != self._state:
                self._renew(args, kwargs)
                self._state = state
            if self._copy is not None:
                return self._run(args, kwargs)
        return self._compute_plainly(args, kwargs)

    def renew(self) -> None:
        """Renew the copy at the next call."""
        self._state = None

    def drop(self) -> None:
        """Delete the copy and free its memory."""
        self._copy: nn.Module | None = None
        self._forward = None
        self._state = None

    def own_bytes(self) -> int:
        """Memory of the copy that it does not share with the module."""
        if self._copy is None:
            return 0
        shared = {t.untyped_storage().data_ptr() for t in _tensors(self.module)}
        own = {t.untyped_storage().data_ptr(): t.nbytes for t in _tensors(self._copy)}
        return sum(size for pointer, size in own.items() if pointer not in shared)

    def _trains(self) -> bool:
        """Whether a gradient of a parameter may be needed."""
        if self.inference and not torch.is_grad_enabled():
            return False
        return any(parameter.requires_grad for parameter in self.module.parameters())

    def __getstate__(self) -> dict:
        """All attributes except the copy."""
        return {**vars(self), '_copy': None, '_forward': None, '_state': None}

    def _compute_plainly(self, args: tuple, kwargs: dict) -> Any:
        return type(self.module).forward(self.module, *args, **kwargs)

    @torch.no_grad()
    def _run(self, args: tuple, kwargs: dict) -> Any:
        if self.is_dense:
            args, kwargs = apply_to((args, kwargs), torch.is_tensor, _channels_last)
        if self.dtype is None:
            return self._forward(*args, **kwargs)
        input_dtype = next(t.dtype for t in _floats((args, kwargs)))
        args, kwargs = apply_to((args, kwargs), _is_float, lambda t: t.to(self.dtype))
        with torch.autocast(self._device_type, enabled=False):
            outputs = self._forward(*args, **kwargs)
        return apply_to(outputs, _is_float, lambda t: t.to(input_dtype))

    @property
    def _device_type(self) -> str:
        return next(self.module.parameters()).device.type

    # Making the copy.

    @torch.no_grad()
    def _renew(self, args: tuple, kwargs: dict) -> None:
        # The copy has its own parameter objects, which share the module's values.
        shared = {id(p): nn.Parameter(p.detach(), False) for p in self.module.parameters()}
        made = copy.deepcopy(self.module, shared)
        for replaced in ('forward', 'train'):
            vars(made).pop(replaced, None)
        folded = fold_norms(made)
        if self.is_dense:  # the first sample suffices
            args, kwargs = apply_to((args, kwargs), torch.is_tensor, _first_map)
        change = self._change(made.forward, args, kwargs) if folded else 0.0
        if change > _LARGEST_CHANGE and change > _LARGEST_MAGNIFICATION * self._rounding(
            args, kwargs
        ):
            self._abandon(change)
            return
        if self.is_dense:
            for parameter in made.parameters():
                parameter.data = _channels_last(parameter.data)
        if self.dtype is not None:
            made.to(self.dtype)
        if self._copy is not None:
            # Compiled code belongs to the existing copy, which gets the new values.
            for old, new in zip(_tensors(self._copy), _tensors(made), strict=True):
                old.data = new.data
            return
        self._copy = made
        self._forward = torch.compile(made.forward) if self.compile else made.forward
        print_log(
            f'{self.name}: computed by an optimised copy with {folded} folded norms and '
            f'{self.own_bytes() / 1e6:.1f} MB of its own',
            logger='current',
        )

    def _abandon(self, change: float) -> None:
        self.drop()
        self.abandoned = True
        print_log(
            f'{self.name}: no fast path, because folding its norms into the preceding convolutions '
            f'changes the output by {change:.2g} of its largest value: they are not computed in '
            'the order of registration',
            logger='current',
            level=logging.WARNING,
        )

    def _change(self, other: Callable, args: tuple, kwargs: dict) -> float:
        """Largest difference between the outputs of ``other`` and of the module, relative to the
        largest output."""
        dtype = next(self.module.parameters()).dtype
        args, kwargs = apply_to((args, kwargs), _is_float, lambda t: t.to(dtype))
        with torch.autocast(self._device_type, enabled=False):
            expected = _floats(self._compute_plainly(args, kwargs))
            found = _floats(other(*args, **kwargs))
        changes = (
            (a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(dtype).tiny)
            for a, b in zip(found, expected, strict=True)
        )
        return max(float(change) for change in changes)

    def _rounding(self, args: tuple, kwargs: dict) -> float:
        """Relative change of the module's outputs if the last digits of its inputs change."""
        # A generator of its own leaves the random numbers of the training unchanged.
        random = torch.Generator().manual_seed(0)

        def rounded(t: Tensor) -> Tensor:
            digits = torch.rand(t.shape, generator=random).to(t) - 0.5
            return t + t * digits * (8 * torch.finfo(t.dtype).eps)

        def compute(*args: Any, **kwargs: Any) -> Any:
            return self._compute_plainly(*apply_to((args, kwargs), _is_float, rounded))

        return self._change(compute, args, kwargs)


def add_fast_path(module: nn.Module, *, name: str, **settings: Any) -> nn.Module:
    """Let a :class:`FastPath` replace ``module.forward`` while frozen; returns ``module``.

    A module without parameters is left unchanged. ``settings`` are arguments of the path.
    """
    path = FastPath(module, name=name, **settings)
    if next(module.parameters(), None) is not None:
        module.forward = path
    return module


def fast_path_of(module: nn.Module) -> FastPath | None:
    """The fast path of ``module`` itself, also under activation checkpointing."""
    path = vars(module).get('forward')
    path = getattr(path, '__wrapped__', path)  # mmengine wraps it for checkpointing
    return path if isinstance(path, FastPath) else None


def renew_fast_paths(model: nn.Module) -> None:
    """Renew all copies within ``model`` at their next call."""
    for module in model.modules():
        path = fast_path_of(module)
        if path is not None:
            path.renew()


def tensor_state(module: nn.Module) -> tuple:
    """Changes if a tensor of ``module`` is written to, replaced or moved."""
    return tuple((t.data_ptr(), t._version, t.device, t.dtype) for t in _tensors(module))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _first_map(tensor: Tensor) -> Tensor:
    return tensor[:1] if tensor.dim() == 4 else tensor


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


def _floats(data: Any) -> list[Tensor]:
    """Floating-point tensors in lists, tuples and dicts."""
    found: list[Tensor] = []
    apply_to(data, _is_float, found.append)
    return found


def _is_float(value: Any) -> bool:
    return torch.is_tensor(value) and value.is_floating_point()
