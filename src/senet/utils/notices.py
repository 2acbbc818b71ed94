"""One-line notices of long work without progress, such as compilation. The command line prints them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["announce", "listening"]

_listeners: list[Callable[[str], None]] = []


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Pass notices to a function within a block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def announce(line: str) -> None:
    """Send a line to all listeners; without listeners, do nothing."""
    for listener in _listeners:
        listener(line)
