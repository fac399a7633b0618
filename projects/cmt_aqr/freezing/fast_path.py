"""A frozen module computed by a copy of it that is made for speed.

The copy has its norms folded into the convolutions and a memory layout that suits the hardware; in
this form its outputs equal the module's but for rounding (1e-4 of the largest value in float32).
Lower precision and ``torch.compile`` are options.

Nobody else sees the copy: it is no submodule, so that state dict, checkpoints, averages, optimizer,
distributed training and audit have to do with the module alone.
"""

from __future__ import annotations

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

# A norm folded where it does not belong changes values by as much as they are. Rounding does by
# 1e-6, and by 1e-3 where a GPU computes convolutions in TF32.
_LARGEST_CHANGE = 1e-2
# Deep networks with random weights magnify rounding: an untrained VoVNet-99 to 0.5 % and more. By
# so much more than one rounding of the input, those of all its layers may change the output.
_LARGEST_MAGNIFICATION = 100


class FastPath:
    """Stands in for ``module.forward`` and lets a copy compute, where nothing is to be learnt.

    That is while no parameter takes a gradient, every submodule is in evaluation mode and no input
    requires a gradient. Otherwise the module computes as ever, and once something of it trains, the
    copy is dropped; it comes back when all is frozen again.

    The copy is made at the first call and renewed at the next one after the module's tensors were
    written to, replaced or moved. What is written through ``.data``, as mmengine's ``EMAHook`` does
    round a validation, torch keeps no count of: :func:`renew_fast_paths` tells of it. At every
    renewal the folded copy has to reproduce the module's output up to what rounding may change, or
    is given up with a warning.

    Memory: the copy has folded kernels and shifts of its own, and the other parameters where layout
    or precision differ; what stays the same is shared. The size is logged. The module keeps its
    weights. The copy keeps no activations.

    A deep copy and a pickle of the module begin without a copy.

    Args:
        module: takes and returns tensors, or lists, tuples and dicts of them. One with sparse
            convolutions has its norms folded, but keeps precision, layout and eager execution.
        name: of the module, for the log.
        channels_last: compute with the channels last in memory.
        dtype: 'float16' or 'bfloat16' to compute in it, and not in what autocast says; outputs have
            the type of the input. ``None`` keeps the precision of the module.
        compile: compile the copy by ``torch.compile``.

    Raises:
        ValueError: an unknown `dtype`.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        channels_last: bool = True,
        dtype: str | None = None,
        compile: bool = False,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(
                f'fast_path: dtype {dtype!r} must be one of {", ".join(map(repr, DTYPES))}'
            )
        self.module = module
        self.name = name
        is_dense = not any(isinstance(m, SPARSE) for m in module.modules())
        self.channels_last = channels_last and is_dense
        self.dtype = DTYPES[dtype] if is_dense else None
        self.compile = compile and is_dense
        self.given_up = False
        self.drop()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what ``module.forward`` does."""
        if not _is_frozen(self.module):
            self.drop()
        elif not self.given_up and not _requires_grad((args, kwargs)):
            state = _state(self.module)
            if state != self._state:
                self._renew(args, kwargs)
                self._state = state
            if self._copy is not None:
                return self._run(args, kwargs)
        return self._compute_plainly(args, kwargs)

    def renew(self) -> None:
        """Make the copy anew at the next call."""
        self._state = None

    def drop(self) -> None:
        """Forget the copy, and so free its memory."""
        self._copy: nn.Module | None = None
        self._forward = None
        self._state = None

    def own_bytes(self) -> int:
        """Memory of the copy beyond that of the module."""
        if self._copy is None:
            return 0
        shared = {t.untyped_storage().data_ptr() for t in _tensors(self.module)}
        own = {t.untyped_storage().data_ptr(): t.nbytes for t in _tensors(self._copy)}
        return sum(size for pointer, size in own.items() if pointer not in shared)

    def __getstate__(self) -> dict:
        """All but the copy."""
        return {**vars(self), '_copy': None, '_forward': None, '_state': None}

    def _compute_plainly(self, args: tuple, kwargs: dict) -> Any:
        return type(self.module).forward(self.module, *args, **kwargs)

    @torch.no_grad()
    def _run(self, args: tuple, kwargs: dict) -> Any:
        args, kwargs = apply_to((args, kwargs), torch.is_tensor, self._prepare)
        if self.dtype is None:
            return self._forward(*args, **kwargs)
        given = next(t.dtype for t in _floats((args, kwargs)))
        with torch.autocast(self._device_type, enabled=False):
            outputs = self._forward(
                *apply_to(args, _is_float, lambda t: t.to(self.dtype)),
                **apply_to(kwargs, _is_float, lambda t: t.to(self.dtype)),
            )
        return apply_to(outputs, _is_float, lambda t: t.to(given))

    def _prepare(self, tensor: Tensor) -> Tensor:
        if self.channels_last and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    @property
    def _device_type(self) -> str:
        return next(self.module.parameters()).device.type

    # Making the copy.

    @torch.no_grad()
    def _renew(self, args: tuple, kwargs: dict) -> None:
        made = _copy_of(self.module)
        folded = fold_norms(made)
        change = self._change(made.forward, args, kwargs) if folded else 0.0
        allowed = _LARGEST_CHANGE
        if change > allowed:
            allowed = max(allowed, _LARGEST_MAGNIFICATION * self._rounding(args, kwargs))
        if change > allowed:
            self.drop()
            self.given_up = True
            print_log(
                f'{self.name}: no fast path, for with its norms folded into the convolutions '
                f'before them the output changes by {change:.2g} of its largest value: they are '
                'not computed in the order in which they are registered',
                logger='current',
                level=logging.WARNING,
            )
            return
        if self.channels_last:
            made.to(memory_format=torch.channels_last)
        if self.dtype is not None:
            made.to(self.dtype)
        if self._copy is not None:
            # The compiled code is that of this copy: only the values are new.
            for old, new in zip(_tensors(self._copy), _tensors(made), strict=True):
                old.data = new.data
            return
        self._copy = made
        self._forward = torch.compile(made.forward) if self.compile else made.forward
        print_log(
            f'{self.name}: computed by a frozen copy, with {folded} norms folded and '
            f'{self.own_bytes() / 1e6:.1f} MB of its own',
            logger='current',
        )

    def _change(self, other: Callable, args: tuple, kwargs: dict) -> float:
        """By how much of the largest value the outputs of another differ from the module's."""
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
        """By how much the module's outputs change where the last digits of its input do."""
        random = torch.Generator().manual_seed(0)  # a training draws the same with and without

        def rounded(t: Tensor) -> Tensor:
            digits = torch.rand(t.shape, generator=random).to(t) - 0.5
            return t + t * digits * (8 * torch.finfo(t.dtype).eps)

        def compute(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = apply_to((args, kwargs), _is_float, rounded)
            return self._compute_plainly(args, kwargs)

        return self._change(compute, args, kwargs)


def add_fast_path(module: nn.Module, *, name: str, **settings: Any) -> nn.Module:
    """Let a :class:`FastPath` compute what ``module`` gives while it is frozen.

    Args:
        module: changed in place; one without parameters is left as it is.
        name: of the module, for the log.
        settings: of :class:`FastPath`.

    Returns:
        ``module``.

    Raises:
        ValueError: as :class:`FastPath`.
    """
    path = FastPath(module, name=name, **settings)
    if next(module.parameters(), None) is not None:
        module.forward = path
    return module


def fast_path_of(module: nn.Module) -> FastPath | None:
    """The fast path that stands in for ``module.forward``, also under activation checkpointing."""
    path = vars(module).get('forward')
    path = getattr(path, '__wrapped__', path)  # mmengine puts its checkpoint round what it finds
    return path if isinstance(path, FastPath) else None


def renew_fast_paths(model: nn.Module) -> None:
    """Make the copies within ``model`` anew at their next call, whatever the tensors tell."""
    for module in model.modules():
        path = fast_path_of(module)
        if path is not None:
            path.renew()


def _copy_of(module: nn.Module) -> nn.Module:
    """A copy with parameters of its own, whose values are still the module's."""
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    made = copy.deepcopy(module, shared)
    for stand_in in ('forward', 'train'):
        vars(made).pop(stand_in, None)
    return made


def _state(module: nn.Module) -> list[tuple]:
    """Changes when a tensor of ``module`` is written to, replaced or moved."""
    return [(t.data_ptr(), t._version, t.device, t.dtype) for t in _tensors(module)]


def _is_frozen(module: nn.Module) -> bool:
    trains = any(parameter.requires_grad for parameter in module.parameters())
    return not trains and not any(m.training for m in module.modules())


def _requires_grad(data: Any) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in _floats(data))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


def _floats(data: Any) -> list[Tensor]:
    """Tensors of floating-point numbers in lists, tuples and dicts."""
    found: list[Tensor] = []
    apply_to(data, _is_float, found.append)
    return found


def _is_float(value: Any) -> bool:
    return torch.is_tensor(value) and value.is_floating_point()
