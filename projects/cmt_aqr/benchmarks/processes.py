"""Sides of a comparison in processes of their own, so that each has a peak memory of its own."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from ..compat import is_installed
from ..denormals import flush_denormals
from .memory import PeakMemory
from .timing import Side, Times


class SideProcess:
    """A side that is made and run in a process of its own; it waits while others have their turn.

    Several may be made at the same time: the constructor does not wait for the side, entering the
    context does. What the side raises is raised there, or by the call that meets it.

    Args:
        make: makes the side there; a function or class that its module has by name.
        settings: keyword arguments of ``make``.
        device: that the side works on, whose memory is watched from before it is made.
        threads: of torch in the process.
    """

    def __init__(
        self,
        make: Callable[..., Side],
        settings: dict[str, Any],
        *,
        device: torch.device,
        threads: int,
    ) -> None:
        # Not forked: a copy of this process would start with its memory and its threads' locks.
        context = multiprocessing.get_context('spawn')
        self._pool = ProcessPoolExecutor(max_workers=1, mp_context=context)
        self._made = self._pool.submit(_make, make, settings, device, threads)

    def __call__(self) -> Times:
        """Let the side do its work once."""
        return self._ask(_run)

    def peak_memory(self) -> int:
        """Bytes that the side needed at most until now, see :class:`.memory.PeakMemory`."""
        return self._ask(_peak_memory)

    def get(self, attribute: str) -> Any:
        """An attribute of the side."""
        return self._ask(_get, attribute)

    def __enter__(self) -> 'SideProcess':
        try:
            self._made.result()
        except BaseException:
            self._pool.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def _ask(self, function: Callable, *args: Any) -> Any:
        self._made.result()
        return self._pool.submit(function, *args).result()


# What follows runs in the process of the side, which has one side only.

_side: Side
_memory: PeakMemory


def _make(
    make: Callable[..., Side], settings: dict[str, Any], device: torch.device, threads: int
) -> None:
    global _side, _memory
    if is_installed('mmengine'):  # an attention is measured without it, too
        from mmengine.logging import MMLogger

        # What is told of a model while it is built would be told once for each side.
        MMLogger.get_current_instance().setLevel('WARNING')
    torch.set_num_threads(threads)
    flush_denormals()
    _memory = PeakMemory(device)
    _side = make(**settings)


def _run() -> Times:
    return _side()


def _peak_memory() -> int:
    return _memory.read()


def _get(attribute: str) -> Any:
    return getattr(_side, attribute)
