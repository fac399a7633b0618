"""Timing of the sides of a comparison in alternation, so that other load affects all of them.

A side is a callable that does its work once and returns the seconds of each phase.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

Times = dict[str, float]
Side = Callable[[], Times]
_CPU_PREFIX = 'cpu/'


class Spread(NamedTuple):
    """Median and extremes of several measurements."""

    median: float
    low: float
    high: float


class Stopwatch:
    """Times of named laps; on a GPU a lap ends when its kernels have finished.

    Args:
        device: the device that does the work.

    Attributes:
        laps: wall-clock seconds.
        cpu_laps: seconds of processor time of all threads, which other load disturbs less.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Delete all laps."""
        self.laps: Times = {}
        self.cpu_laps: Times = {}

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Time the block; laps of the same name add up."""
        start, cpu_start = self._now()
        yield
        end, cpu_end = self._now()
        self.laps[name] = self.laps.get(name, 0.0) + end - start
        self.cpu_laps[name] = self.cpu_laps.get(name, 0.0) + cpu_end - cpu_start

    def times(self, with_sums: Callable[[Times], Times]) -> Times:
        """The laps and their sums; on a CPU also the processor time of each as ``cpu/...``.

        Args:
            with_sums: adds the sums of interest to laps.
        """
        times = with_sums(self.laps)
        if self.device.type == 'cpu':
            cpu_times = with_sums(self.cpu_laps)
            times |= {f'{_CPU_PREFIX}{phase}': seconds for phase, seconds in cpu_times.items()}
        return times

    def _now(self) -> tuple[float, float]:
        """Both clocks after all work of the device."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter(), time.process_time()


def alternate(sides: Mapping[str, Side], *, rounds: int, warmup: int) -> dict[str, list[Times]]:
    """Run all sides once a round, every second round in reverse order to cancel a drift.

    Args:
        sides: by name.
        rounds: number of rounds that count.
        warmup: number of rounds before them, which do not count.

    Returns:
        the times of each side, one entry for every round that counts.
    """
    times: dict[str, list[Times]] = {name: [] for name in sides}
    for index in range(warmup + rounds):
        names = list(sides) if index % 2 == 0 else list(reversed(sides))
        for name in names:
            measured = sides[name]()
            if index >= warmup:
                times[name].append(measured)
        done = f'round {index + 1} of {warmup + rounds} ({warmup} to warm up)'
        print(done, file=sys.stderr, flush=True)
    return times


def summarize(runs: Sequence[Times]) -> dict[str, Spread]:
    """Median and extremes of each phase over the rounds of one side."""
    columns = {phase: [run[phase] for run in runs] for phase in runs[0]}
    return {
        phase: Spread(statistics.median(seconds), min(seconds), max(seconds))
        for phase, seconds in columns.items()
    }


def work(measured: Mapping[str, Spread]) -> dict[str, Spread]:
    """Processor time of each phase on a CPU, and wall-clock time on a GPU."""
    cpu = {
        phase.removeprefix(_CPU_PREFIX): spread
        for phase, spread in measured.items()
        if phase.startswith(_CPU_PREFIX)
    }
    return cpu or dict(measured)
