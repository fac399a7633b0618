"""Timing the sides of a comparison in one run, in turn, so that other load meets all alike.

A side is a callable that does its work once and returns the seconds of each of its phases.
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


class Spread(NamedTuple):
    """What several runs gave, in the unit of each."""

    median: float
    low: float
    high: float


class Stopwatch:
    """Seconds of named laps; on a GPU a lap lasts until its work is done.

    Args:
        device: where the work is done.

    Attributes:
        laps: seconds that passed.
        cpu_laps: seconds of processor time of all threads, which other load disturbs less.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: Times = {}
        self.cpu_laps: Times = {}

    def reset(self) -> None:
        """Forget all laps."""
        self.laps, self.cpu_laps = {}, {}

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Time what is done inside; laps of the same name add up."""
        start, cpu_start = self._now()
        yield
        end, cpu_end = self._now()
        self.laps[name] = self.laps.get(name, 0.0) + end - start
        self.cpu_laps[name] = self.cpu_laps.get(name, 0.0) + cpu_end - cpu_start

    def times(self, with_sums: Callable[[Times], Times]) -> Times:
        """The laps and their sums; on a CPU also as ``cpu/...``, in processor time.

        Args:
            with_sums: adds to laps the sums that are of interest.
        """
        times = with_sums(self.laps)
        if self.device.type == 'cpu':
            cpu_times = with_sums(self.cpu_laps)
            times = times | {f'cpu/{phase}': seconds for phase, seconds in cpu_times.items()}
        return times

    def _now(self) -> tuple[float, float]:
        """Both clocks once the device has done all it was given."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter(), time.process_time()


def alternate(sides: Mapping[str, Side], *, rounds: int, warmup: int) -> dict[str, list[Times]]:
    """Run all sides once a round; every second round in reverse, so that a drift favours none.

    Args:
        sides: by name.
        rounds: that count.
        warmup: rounds before, which do not.

    Returns:
        for each side its times in the rounds that count.

    Raises:
        ValueError: fewer than one round, or a negative warm-up.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(
            f'rounds ({rounds}) must be 1 or more, and warmup ({warmup}) not less than 0'
        )
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
    """Median and extremes of each phase over several runs of one side."""
    return {
        phase: Spread(
            statistics.median(run[phase] for run in runs),
            min(run[phase] for run in runs),
            max(run[phase] for run in runs),
        )
        for phase in runs[0]
    }


def work(measured: Mapping[str, Spread]) -> dict[str, Spread]:
    """Processor time of each phase on a CPU, and the time it took on a GPU."""
    prefix = 'cpu/'
    cpu = {k.removeprefix(prefix): v for k, v in measured.items() if k.startswith(prefix)}
    return cpu or dict(measured)
