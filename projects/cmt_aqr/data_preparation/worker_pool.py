"""Worker processes for jobs that write files: one thread each, and none outlives a failure."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import cv2
import torch


@contextmanager
def worker_pool(workers: int) -> Iterator[Callable]:
    """``map`` in the order of the tasks, over worker processes if there are more than one.

    Args:
        workers: Number of processes; 1 computes in the calling one.

    Raises:
        ValueError: ``workers`` is below 1.
        ChildProcessError: A worker was killed.
    """
    if workers < 1:
        raise ValueError(f'workers must be at least 1, got {workers}')
    if workers == 1:
        yield map
        return
    # Workers that are forked need not import everything anew.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    foreign = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield pool.map
    except BaseException as error:
        # A task takes seconds; nobody wants it any more.
        for worker in set(multiprocessing.active_children()) - foreign:
            worker.terminate()
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(
                'a worker process was killed, perhaps for want of memory; try fewer workers'
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """One thread, and signals left to the parent: Ctrl-C reaches every process of a terminal."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the parent, which may be killed without a chance to end its workers."""
    multiprocessing.parent_process().join()
    os._exit(1)
