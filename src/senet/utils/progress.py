"""The protocol of progress bars."""

from collections.abc import Iterable
from typing import Protocol

__all__ = ["Progress", "no_progress"]


class Progress(Protocol):
    """A function that shows progress while the steps that it returns are iterated."""

    def __call__(self, steps: Iterable[int], total: int, description: str, /) -> Iterable[int]:
        """Return the same steps.

        Args:
            steps: numbers of the steps, or any other integers.
            total: number of steps; 0 if unknown.
            description: what the steps do, such as "decode digits".
        """
        ...


def no_progress(steps: Iterable[int], total: int, description: str, /) -> Iterable[int]:
    """Return the steps and show nothing."""
    return steps
