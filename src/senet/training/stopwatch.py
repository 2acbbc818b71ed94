"""Where the time of a run goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Seconds by kind of work.

    Args:
        synchronise: wait for the GPU at the end of each piece of work, so that its time is counted where it belongs.

    Attributes:
        waits: whether it does so.
    """

    def __init__(self, synchronise: bool = False) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.waits = synchronise and torch.cuda.is_available()
        self._last = time.perf_counter()

    def restart(self) -> None:
        """What follows is measured from here."""
        self._last = time.perf_counter()

    def lap(self, work: str) -> None:
        """What went since the last lap was this kind of work."""
        if self.waits:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[work] += now - self._last
        self._last = now

    @contextmanager
    def measure(self, work: str) -> Iterator[None]:
        """A block that is this kind of work."""
        self.restart()
        try:
            yield
        finally:
            self.lap(work)
