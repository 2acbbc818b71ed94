"""Worker processes of a `DataLoader` that ignore SIGINT and SIGTERM, and end with the process that started them."""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import util  # registers its own exit handler, which must run after the one of this module
from multiprocessing.process import BaseProcess
from typing import Any
from weakref import WeakKeyDictionary

from torch.utils.data import DataLoader

__all__ = ["ignore_signals", "iterate"]

# Each worker process, and the process that started it: a forked copy of that process must not end it.
_workers: WeakKeyDictionary[BaseProcess, int] = WeakKeyDictionary()


def ignore_signals(worker: int) -> None:
    """Ignore SIGINT and SIGTERM in a worker process: a run that is stopped needs its workers until it has saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def iterate(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers of a loader and return its iterator; the workers are killed when this process exits."""
    others = set(multiprocessing.active_children())
    batches = iter(loader)
    _workers.update(dict.fromkeys(set(multiprocessing.active_children()) - others, os.getpid()))
    return batches


def _kill_workers() -> None:
    """Kill the workers of iterators that are still open.

    At exit, multiprocessing sends SIGTERM to each worker and waits for its end: forever, as workers ignore the signal.
    """
    workers = [worker for worker, parent in _workers.items() if parent == os.getpid() and worker.is_alive()]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler reports a killed worker as an error
        util.debug("killing %d workers of loaders", len(workers))
    for worker in workers:
        worker.kill()


atexit.register(_kill_workers)
