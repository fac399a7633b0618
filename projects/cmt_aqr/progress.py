"""Progress of a command, with the time left."""

import sys
import time
from datetime import timedelta

from tqdm import tqdm

# Least seconds between the lines that stand for a bar where there is no terminal.
_PAUSE = 30


class Progress:
    """Progress bar on a terminal, and elsewhere a line for each tenth that takes a while.

    Args:
        title: what makes progress.
        total: number of steps.
        done: number of steps before the first.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.done = title, total, done
        self.bar = tqdm(
            total=total, initial=done, desc=title, disable=None, leave=False, dynamic_ncols=True
        )
        self._first, self._started, self._shown = done, time.monotonic(), time.monotonic()

    def move(self, note: str = '', *, steps: int = 1) -> None:
        """Some steps are done."""
        self.done += steps
        if not self.bar.disable:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(steps)
        elif self.done * 10 // self.total > (self.done - steps) * 10 // self.total:
            self._line(note)

    def _line(self, note: str) -> None:
        now = time.monotonic()
        if now - self._shown < _PAUSE:
            return
        self._shown = now
        rate = (now - self._started) / (self.done - self._first)
        left = timedelta(seconds=round(rate * (self.total - self.done)))
        parts = (f'{self.title}: {self.done} of {self.total}', note, f'{left} left')
        print(', '.join(filter(None, parts)), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()
