"""Sides of a comparison in processes of their own, so that each has its own peak memory."""

import argparse
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from projects.cmt_aqr.compat import is_installed
from projects.cmt_aqr.denormals import flush_denormals

from .timing import Side, Times, alternate


class PeakMemory:
    """Peak memory of this process since the object was created, in bytes.

    On a GPU it is the memory that torch allocated. On a CPU it is the resident memory above that at
    the start. Linux counts its peak over the whole life of a process: create the object in a new
    process, before it has freed anything large.

    Args:
        device: the device whose memory is read.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._start = _process_memory('VmRSS')

    def read(self) -> int:
        """The peak until now."""
        if self.device.type == 'cuda':
            return torch.cuda.max_memory_allocated(self.device)
        return _process_memory('VmHWM') - self._start


def _process_memory(field: str) -> int:
    """A field of ``/proc/self/status`` in bytes, see proc_pid_status(5).

    ``getrusage`` would not do: a new process inherits the peak of its parent.
    """
    lines = Path('/proc/self/status').read_text().splitlines()
    value = next(line for line in lines if line.startswith(f'{field}:')).split()[1]
    return int(value) * 1024


class SideProcess:
    """A side that is built and run in its own process.

    An exception of the side is raised by the context, which waits until the side is built, or by
    the call that causes it.

    Args:
        make: builds the side in the process; picklable.
        device: the device whose peak memory is recorded, from before the side is built.
        threads: number of threads of torch in the process.
    """

    def __init__(self, make: Callable[[], Side], *, device: torch.device, threads: int) -> None:
        # Not forked: a fork would start with the memory and the locked threads of this process.
        context = multiprocessing.get_context('spawn')
        self._pool = ProcessPoolExecutor(max_workers=1, mp_context=context)
        self._made = self._pool.submit(_make, make, device, threads)

    def __call__(self) -> Times:
        """Run the side once."""
        return self._pool.submit(_run).result()

    def facts(self) -> Any:
        """The attribute ``facts`` of the side."""
        return self._pool.submit(_facts).result()

    def peak_memory(self) -> int:
        """Peak memory of the side until now in bytes, see :class:`PeakMemory`."""
        return self._pool.submit(_peak_memory).result()

    def __enter__(self) -> 'SideProcess':
        try:
            self._made.result()
        except BaseException:
            self._pool.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


class Measured(NamedTuple):
    """Measurements of one side."""

    runs: list[Times]
    facts: Any
    peak_memory: int


def measure(
    makers: Mapping[str, Callable[[], Side]], args: argparse.Namespace
) -> dict[str, Measured]:
    """Run all sides in alternation, each in its own process.

    Args:
        makers: builds each side, see :class:`SideProcess`; sides have an attribute ``facts``.
        args: ``device``, ``threads``, ``rounds`` and ``warmup``.
    """
    # Started together, since importing torch takes each of them seconds.
    sides = {
        name: SideProcess(make, device=args.device, threads=args.threads)
        for name, make in makers.items()
    }
    with ExitStack() as stack:
        for side in sides.values():
            stack.enter_context(side)
        runs = alternate(sides, rounds=args.rounds, warmup=args.warmup)
        return {
            name: Measured(runs[name], side.facts(), side.peak_memory())
            for name, side in sides.items()
        }


# The functions below run in the process of a side.

_side: Side
_memory: PeakMemory


def _make(make: Callable[[], Side], device: torch.device, threads: int) -> None:
    global _side, _memory
    if is_installed('mmengine'):  # attention is measured with torch alone
        from mmengine.logging import MMLogger

        # Messages about the model would appear once for each side.
        MMLogger.get_current_instance().setLevel('WARNING')
    torch.set_num_threads(threads)
    flush_denormals()
    _memory = PeakMemory(device)
    _side = make()


def _run() -> Times:
    return _side()


def _facts() -> Any:
    return _side.facts


def _peak_memory() -> int:
    return _memory.read()
