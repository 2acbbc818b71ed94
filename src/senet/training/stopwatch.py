"""The time of a run by kind of work."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Seconds by kind of work.

    Args:
        synchronize: wait for the GPU at the end of each piece of work, so that its time counts for that work.

    Attributes:
        waits: whether it waits for the GPU.
    """

    def __init__(self, synchronize: bool = False) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.waits = synchronize and torch.cuda.is_available()
        self._last = time.perf_counter()

    def restart(self) -> None:
        """Start measuring here."""
        self._last = time.perf_counter()

    def lap(self, work: str) -> None:
        """Count the time since the last lap for a kind of work."""
        if self.waits:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[work] += now - self._last
        self._last = now

    @contextmanager
    def measure(self, work: str) -> Iterator[None]:
        """Count the time of a block for a kind of work."""
        self.restart()
        try:
            yield
        finally:
            self.lap(work)
