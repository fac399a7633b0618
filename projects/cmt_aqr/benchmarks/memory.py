"""Peak memory of a process."""

from pathlib import Path

import torch


class PeakMemory:
    """The most memory that this process held at a time since the object was made, in bytes.

    On a GPU it is what torch allocated. On a CPU it is the resident memory above that at the start,
    as Linux counts it for the whole life of the process: make the object in a fresh process, before
    anything large was there and gone.

    Args:
        device: whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._start = _own_memory('VmRSS')

    def read(self) -> int:
        """The peak until now."""
        if self.device.type == 'cuda':
            return torch.cuda.max_memory_allocated(self.device)
        return _own_memory('VmHWM') - self._start


def _own_memory(field: str) -> int:
    """A field of ``/proc/self/status``, see proc_pid_status(5).

    ``getrusage`` is not used: a new process inherits the peak of the one that started it.
    """
    lines = Path('/proc/self/status').read_text().splitlines()
    value = next(line for line in lines if line.startswith(f'{field}:')).split()[1]
    return int(value) * 1024
