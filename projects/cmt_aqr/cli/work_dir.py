"""The work directory of a training: it can be written, and belongs to one run at a time."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..usage_error import UsageError

_LOCK = '.training'


@contextmanager
def claim_work_dir(folder: str, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make the work directory of a training and lock it, in the main process.

    Args:
        folder: the work directory.
        resume: whether the run continues one that has saved checkpoints there.
        overwrite: whether those of another run may be replaced.

    Raises:
        UsageError: the folder cannot be written, a training runs in it, or it has checkpoints.
    """
    if any(int(os.environ.get(name, 0)) for name in ('RANK', 'SLURM_PROCID')):
        yield
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        lock = open(Path(folder, _LOCK), 'a')  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UsageError(
            f'work directory {folder} cannot be written: {error.strerror}; choose another one by '
            '--work-dir'
        ) from error
    with lock:
        _lock(lock, folder)
        checkpoints = sorted(path.name for path in Path(folder).glob('*.pth'))
        if checkpoints and not (resume or overwrite):
            raise UsageError(
                f'{folder} has checkpoints of another run ({checkpoints[-1]}): continue it by '
                '--resume, choose another --work-dir, or replace them by --overwrite'
            )
        yield


def _lock(file: TextIO, folder: str) -> None:
    """Lock a file until it is closed or the process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(
            f'another training runs in {folder}; choose another --work-dir for this one'
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # a file system without locks
            raise
