"""The work directory of a training: it can be written, and belongs to one run at a time."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..usage_error import UsageError
from .processes import is_first_process

# What file systems without locks answer; Lustre without its option ``flock`` the third.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def lock_work_dir(folder: str, *, task: str) -> Iterator[None]:
    """Create a work directory and lock it, in the main process, against a second run of a task.

    Args:
        folder: the work directory.
        task: what runs in it, such as ``training``.

    Raises:
        UsageError: the folder cannot be written, or such a task runs in it.
    """
    if not is_first_process():
        yield
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        lock = open(Path(folder, f'.{task}'), 'a')  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UsageError(
            f'work directory {folder} cannot be written: {error.strerror}; choose another one by '
            '--work-dir'
        ) from error
    with lock:
        _lock(lock, folder, task)
        yield


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
    with lock_work_dir(folder, task='training'):
        checkpoints = sorted(path.name for path in Path(folder).glob('*.pth'))
        if is_first_process() and checkpoints and not (resume or overwrite):
            raise UsageError(
                f'{folder} has checkpoints of another run ({checkpoints[-1]}): continue it by '
                '--resume, choose another --work-dir, or replace them by --overwrite'
            )
        yield


def _lock(file: TextIO, folder: str, task: str) -> None:
    """Lock a file until it is closed or the process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(
            f'another {task} runs in {folder}; choose another --work-dir for this one'
        ) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
