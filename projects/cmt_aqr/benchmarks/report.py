"""What a benchmark found, to be read and to be kept, and the machine it ran on."""

import os
import platform
import subprocess
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


def machine(device: torch.device, threads: int) -> dict:
    """Where and with what code a benchmark runs, and how busy the machine is with other work."""
    return {
        'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu',
        'cpu': _cpu_model(),
        'cores': os.cpu_count(),
        'threads': threads,
        'load': round(os.getloadavg()[0], 1),
        'platform': platform.platform(),
        'torch': torch.__version__,
        'commit': _commit(),
    }


def machine_line(facts: dict) -> str:
    """The answer of :func:`machine` as a sentence, to be called before the benchmark starts."""
    # Half a process of others is enough to disturb.
    state = 'busy with other work' if facts['load'] >= 0.5 else 'idle'
    return (
        f'Device {facts["device"]}; {facts["cpu"]}, {facts["cores"]} cores, {facts["threads"]} '
        f'threads; load {facts["load"]} before the start: {state}; torch {facts["torch"]}; '
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
