"""Pool of single-threaded worker processes that ends with its first failure."""

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
    """Yields a ``map`` that preserves the order, over several processes if ``workers`` is above 1.

    Args:
        workers: number of processes; 1 computes in the calling process.

    Raises:
        ValueError: ``workers`` is below 1.
        ChildProcessError: a worker was killed.
    """
    if workers < 1:
        raise ValueError(f'workers must be at least 1, got {workers}')
    if workers == 1:
        yield map
        return
    # Forked workers need not import everything again.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    foreign = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield pool.map
    except BaseException as error:
        # Running tasks take seconds, and their results are no longer needed.
        for worker in set(multiprocessing.active_children()) - foreign:
            worker.terminate()
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(
                'a worker process was killed, possibly out of memory; try fewer workers'
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Sets one thread, and leaves Ctrl-C, which reaches every process, to the parent."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Ends the worker when the parent is killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
