"""One-line notices of long work without progress, such as compilation, and of slower paths.

A slower path is taken where a machine, a network or a library does not support the fastest one. The command line prints
notices.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["announce", "listening"]

_Listener = Callable[[str], None]
# Listeners, and whether they get notices of slower paths only.
_listeners: list[tuple[_Listener, bool]] = []


@contextmanager
def listening(listener: _Listener, *, slower_only: bool = False) -> Iterator[None]:
    """Pass notices to a function within a block.

    Args:
        listener: the function.
        slower_only: whether it gets notices of slower paths only.
    """
    entry = (listener, slower_only)
    _listeners.append(entry)
    try:
        yield
    finally:
        _listeners.remove(entry)


def announce(line: str, *, slower: bool = False) -> None:
    """Send a line to all listeners; without listeners, do nothing.

    Args:
        line: the notice.
        slower: whether a slower path is taken, for the reason in the line.
    """
    for listener, slower_only in _listeners:
        if slower or not slower_only:
            listener(line)
