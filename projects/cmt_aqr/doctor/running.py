"""Running checks, and their table."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch

from ..markdown import duration, table
from .result import Result


class Check(NamedTuple):
    """A check and its name in the table."""

    name: str
    run: Callable[[torch.device], Result]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the table."""

    check: str
    result: Result
    seconds: float
    traceback: str | None = None
    """of the exception that the check raised, if it did"""

    @property
    def verdict(self) -> str:
        """The last column."""
        if self.result.skipped:
            return 'skipped'
        return 'ok' if self.result.passed else 'FAILED'


def run_check(check: Check, device: torch.device) -> Line:
    """Run a check; an exception becomes a failed line with the last line of its message."""
    start, trace = time.perf_counter(), None
    torch.manual_seed(0)
    try:
        result = check.run(device)
    except Exception:
        trace = traceback.format_exc()
        result = Result(what='stopped with an error', faults=[_last_line(trace)])
    seconds = time.perf_counter() - start
    return Line(check=check.name, result=result, seconds=seconds, traceback=trace)


def failed_import(trace: str) -> Line:
    """Line of a failed import of this project."""
    result = Result(what='this project with its stack', faults=[_last_line(trace)])
    return Line(check='import', result=result, seconds=0.0, traceback=trace)


def _last_line(trace: str) -> str:
    return trace.strip().splitlines()[-1]


def markdown(lines: Sequence[Line]) -> str:
    """One row for each check, then all faults and comparisons beyond their limits."""
    head = ['check', 'what', 'largest error', 'allowed', 'time', '']
    rows, failures = [], []
    for line in lines:
        worst = line.result.worst
        numbers = ['', ''] if worst is None else [f'{worst.error:.1e}', f'{worst.allowed:.1e}']
        what = line.result.what if worst is None else f'{line.result.what}; worst: {worst.name}'
        rows.append([line.check, what, *numbers, duration(line.seconds), line.verdict])
        failures += [f'{line.check}: {fault}' for fault in line.result.faults]
        failures += [
            f'{line.check}: {found.name}: error {found.error:.2e}, allowed {found.allowed:.2e}'
            for found in line.result.comparisons
            if not found.holds
        ]
    return '\n\n'.join([table(head, rows), *(['\n'.join(failures)] if failures else [])])


def as_data(line: Line) -> dict:
    """A line as JSON; errors that are not finite become text."""
    data = {**asdict(line), 'verdict': line.verdict}
    data['result']['comparisons'] = [
        {'name': name, 'error': error if abs(error) < float('inf') else str(error), 'allowed': most}
        for name, error, most in line.result.comparisons
    ]
    return data
