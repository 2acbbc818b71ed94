"""A run that is told to end: it saves first."""

import os
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["StopRequest", "Stopped"]


class Stopped(Exception):  # noqa: N818  (no error)
    """A run ends early because a signal asked for it."""


class StopRequest:
    """Catches SIGINT and SIGTERM while it is open, so that a run ends at its next step; a second one ends it at once.

    Only the main thread can catch signals: elsewhere, nothing is caught. A signal that is ignored stays so, as SIGINT
    is by what a shell runs in the background.

    Attributes:
        signal: number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = number

    def check(self) -> None:
        """Go on, unless a signal came.

        Raises:
            Stopped: it did.
        """
        if self.signal is not None:
            raise Stopped
