"""What a benchmark found, to be read and to be kept, and the machine it ran on."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .timing import Spread

_REPO_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark found.

    Attributes:
        markdown: to be read.
        data: the same in full, to be written as JSON.
    """

    markdown: str
    data: dict


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ['---'] + ['---:'] * (len(head) - 1)
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in (head, rule, *rows))


def duration(seconds: float) -> str:
    """Seconds, or milliseconds below one second."""
    return f'{seconds:.2f} s' if seconds >= 1 else f'{1000 * seconds:.1f} ms'


def spread(seconds: Spread) -> str:
    """Median with both extremes."""
    return f'{duration(seconds.median)} ({duration(seconds.low)}–{duration(seconds.high)})'


def gigabytes(size: float) -> str:
    """10^9 bytes."""
    return f'{size / 1e9:.2f} GB'


class OtherWork:
    """How much of the machine others use while this process and its children work.

    Children count once they have ended, as those of :class:`.processes.SideProcess` have when a
    benchmark is done.
    """

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float:
        """Cores that others kept busy since the object was made, on average."""
        seconds, busy, own = (b - a for a, b in zip(self._start, self._now(), strict=True))
        return max(0.0, (busy - own) / seconds)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds on the clock, of all busy cores, and of those busy for this process."""
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        # See proc_stat(5): user, nice, system, idle, waiting for a disk, two kinds of interrupt.
        user, nice, system, _, _, *interrupts = (
            int(ticks) for ticks in Path('/proc/stat').read_text().splitlines()[0].split()[1:8]
        )
        busy = (user + nice + system + sum(interrupts)) / os.sysconf('SC_CLK_TCK')
        return time.monotonic(), busy, own


def machine(device: torch.device, threads: int) -> dict:
    """Where and with what code a benchmark runs."""
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
    """The answer of :func:`machine` as a sentence, with that of :class:`OtherWork`."""
    return (
        f'Device {facts["device"]}; {facts["cpu"]}, {facts["cores"]} cores, of which other work '
        f'took {other_work:.1f} meanwhile; {facts["threads"]} threads; torch {facts["torch"]}; '
        f'commit {facts["commit"]}.'
    )


def _cpu_model() -> str:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.machine())


def _commit() -> str:
    """The checkout's commit, with ``-dirty`` where it was changed since."""
    command = ['git', '-C', str(_REPO_ROOT), 'describe', '--always', '--dirty', '--exclude=*']
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return 'unknown'
    return answer.stdout.strip() or 'unknown'
