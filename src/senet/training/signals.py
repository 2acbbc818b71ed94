"""SIGINT and SIGTERM, which end a run at its next step, saved."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from senet.utils.errors import PeerLostError

__all__ = ["StopRequest", "Stopped"]


class Stopped(Exception):  # noqa: N818  (no error)
    """A signal ended the run early."""


class StopRequest:
    """Catches SIGINT and SIGTERM within a block: a run ends at its next step; a second signal ends it at once.

    Only the main thread can catch signals; in other threads nothing is caught. An ignored signal stays ignored, as
    SIGINT is in a process that a shell runs in the background.

    Args:
        shared: several processes end at the same step: they set `signal` once all know of it.
        grace: seconds in which a second signal counts as the first. For one Ctrl-C, torchrun's processes get a signal
            from the terminal and one from torchrun.

    Attributes:
        received: number of the signal that this process has received, or None.
        signal: number of the signal that ends the run, or None.
    """

    def __init__(self, shared: bool = False, grace: float = 0.0) -> None:
        self.received: int | None = None
        self.signal: int | None = None
        self._shared, self._grace, self._when = shared, grace, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *exception: object) -> None:
        # When a process ends, torchrun sends SIGTERM to the others, which may not have printed their errors yet.
        lost = any(isinstance(part, PeerLostError) for part in exception)
        ends = self._shared and (lost or self.signal is not None)
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if ends and number == signal.SIGTERM else handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is not None and now - self._when >= self._grace:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.received is None:
            self.received, self._when = number, now
            if not self._shared:
                self.signal = number

    def check(self) -> None:
        """Raise `Stopped` if a signal ends the run."""
        if self.signal is not None:
            raise Stopped
