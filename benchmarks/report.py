"""Report of a benchmark, and the machine that it ran on."""

import argparse
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import torch

from projects.cmt_aqr.markdown import duration

from .timing import Spread

_REPO_ROOT = Path(__file__).resolve().parents[1]


class Report(NamedTuple):
    """Results of a benchmark, as text and tables and in full for JSON."""

    markdown: str
    data: dict


def spread(seconds: Spread) -> str:
    """Median and extremes."""
    return f'{duration(seconds.median)} ({duration(seconds.low)}–{duration(seconds.high)})'


def gigabytes(size: float) -> str:
    """10^9 bytes."""
    return f'{size / 1e9:.2f} GB'


def procedure(args: argparse.Namespace) -> str:
    """How all benchmarks measure time."""
    return (
        f'Medians (lowest–highest) of {args.rounds} rounds after {args.warmup} to warm up; all '
        'sides in alternation.'
    )


def memory_kind(device: torch.device) -> str:
    """Definition of peak memory on a device."""
    if device.type == 'cuda':
        return 'Peak memory is what torch allocated.'
    return (
        'Peak memory is the resident memory above that before the side was built, including freed '
        'memory that the allocator keeps (little with MALLOC_MMAP_THRESHOLD_=1048576 in the '
        'environment).'
    )


class OtherWork:
    """Load on this machine by other processes than this one and its children.

    Children count once they have ended.
    """

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float:
        """Mean number of cores that other processes used since the object was created."""
        seconds, busy, own = (b - a for a, b in zip(self._start, self._now(), strict=True))
        return max(0.0, (busy - own) / seconds)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Wall-clock seconds, busy seconds of all cores, and those of this process."""
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        # See proc_stat(5): user, nice, system, idle, waiting for a disk, two kinds of interrupt.
        user, nice, system, _, _, *interrupts = (
            int(ticks) for ticks in Path('/proc/stat').read_text().splitlines()[0].split()[1:8]
        )
        busy = (user + nice + system + sum(interrupts)) / os.sysconf('SC_CLK_TCK')
        return time.monotonic(), busy, own


def machine(device: torch.device, threads: int) -> dict:
    """Machine and versions of a benchmark."""
    return {
        'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu',
        'cpu': _cpu_model(),
        'cores': os.cpu_count(),
        'threads': threads,
        'platform': platform.platform(),
        'torch': torch.__version__,
        'commit': _commit(),
    }


def machine_line(facts: dict, other_work: float) -> str:
    """A sentence from :func:`machine` and :class:`OtherWork`."""
    return (
        f'Device {facts["device"]}; {facts["cpu"]}, {facts["cores"]} cores, of which other '
        f'processes used {other_work:.1f}; {facts["threads"]} threads; torch {facts["torch"]}; '
        f'commit {facts["commit"]}.'
    )


def _cpu_model() -> str:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.machine())


def _commit() -> str:
    """Commit of the checkout, with ``-dirty`` if it has changes."""
    command = ['git', '-C', str(_REPO_ROOT), 'describe', '--always', '--dirty', '--exclude=*']
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return 'unknown'
    return answer.stdout.strip() or 'unknown'
