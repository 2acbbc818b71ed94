"""A run that is told to end: it saves first."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from senet.training.distributed.errors import PeerLostError

__all__ = ["StopRequest", "Stopped"]


class Stopped(Exception):  # noqa: N818  (no error)
    """A run ends early because a signal asked for it."""


class StopRequest:
    """Catches SIGINT and SIGTERM while it is open, so that a run ends at its next step; a second one ends it at once.

    Only the main thread can catch signals: elsewhere, nothing is caught. A signal that is ignored stays so, as SIGINT
    is by what a shell runs in the background.

    Args:
        shared: several processes end at the same step: `signal` is left to them to set, once all know.
        grace: seconds in which a second signal is taken for the first. Of a Ctrl-C, torchrun's processes hear from the
            terminal and from torchrun.

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
        # As soon as a process is gone, torchrun sends the others SIGTERM, which is not to come before their last words.
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
