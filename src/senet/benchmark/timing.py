"""Times of interleaved steps: a machine that slows down slows all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from senet.utils.limits import MOST_ROUNDS, check_at_most
from senet.utils.progress import Progress, no_progress

__all__ = [
    "AGREEING",
    "FEWEST_ROUNDS",
    "LIMIT",
    "TOLERANCE",
    "TURN",
    "Clock",
    "CudaEvent",
    "Times",
    "check_length",
    "clock_for",
    "interleave",
]

# Each call marks a point in time; the difference of two of them is a number of seconds.
Clock = Callable[[], Any]

# Warm-up ends when the last so many times of each side differ by no more than this part of the least, or at the limit.
AGREEING = 3
TOLERANCE = 0.1
LIMIT = 15
# Seconds that the turn of a side takes at least, by several steps where one is short: clocks and schedulers are coarse.
TURN = 0.1
# Where their number follows from the seconds.
FEWEST_ROUNDS = 9


class CudaEvent:
    """A point in the work queued on the current CUDA stream; created, it is recorded.

    The difference of two is the device's time between them in seconds. It waits for the later one. So the host waits
    once in a turn, and queues the next step while the device works on the last, as in training.
    """

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record()

    def __sub__(self, earlier: "CudaEvent") -> float:
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) / 1000


def clock_for(device: str) -> Clock:
    """The clock that times work on a device: CUDA events for "cuda", otherwise the host's clock."""
    return CudaEvent if device == "cuda" else time.perf_counter


@dataclass(frozen=True)
class Times:
    """Of several sides by round.

    Attributes:
        seconds: (rounds, sides), of one step.
        steps: that each side does in a turn.
        warm_up: turns of each side before the first round.
        steady: whether the times of each side agreed when the warm-up ended.
    """

    seconds: NDArray[np.float64]
    steps: int
    warm_up: int
    steady: bool


def interleave(
    sides: Sequence[Callable[[], object]],
    clock: Clock,
    *,
    rounds: int | None = None,
    seconds: float = 60.0,
    warm_up: int = LIMIT,
    progress: Progress = no_progress,
) -> Times:
    """Time sides, interleaved.

    The order of the sides is reversed in every other round, and the first side changes, so that no side always follows
    the same other one.

    Args:
        sides: each does one step when called.
        clock: marks a point in time, see `clock_for`.
        rounds: how many; as fit into `seconds`, and 9 or more, unless given.
        seconds: of all rounds together, without the warm-up.
        warm_up: turns of each side before the first round, at most.
        progress: shows progress.

    Raises:
        ValueError: `rounds` below 1, or `seconds` not above 0 or not finite.
    """
    check_length(rounds, seconds)

    def turn(side: int, steps: int) -> float:
        start = clock()
        for _ in range(steps):
            sides[side]()
        return float(clock() - start) / steps

    warm: list[list[float]] = [[] for _ in sides]
    steady = False
    for number in progress(range(warm_up), warm_up, "warm up"):
        if steady:
            continue  # the end of a bar
        for side in _order(number, len(sides)):
            warm[side].append(turn(side, 1))
        steady = all(_agree(times) for times in warm)
    step = [float(np.median(times[-AGREEING:])) for times in warm]
    steps = max(1, ceil(TURN / max(min(step), 1e-6)))
    if rounds is None:
        rounds = max(FEWEST_ROUNDS, int(seconds / max(steps * sum(step), 1e-6)))
    found = np.empty((rounds, len(sides)))
    for number in progress(range(rounds), rounds, "measure"):
        for side in _order(number, len(sides)):
            found[number, side] = turn(side, steps)
    return Times(found, steps, len(warm[0]), steady)


def check_length(rounds: int | None, seconds: float) -> None:
    """Refuse a number of rounds below 1 or above the limit, and seconds that are not above 0 or not finite.

    Raises:
        ValueError: one of these.
    """
    if rounds is not None and rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")
    check_at_most("rounds", rounds, MOST_ROUNDS)
    if not 0 < seconds < inf:
        raise ValueError(f"seconds must be above 0 and finite, got {seconds}")


def _order(number: int, sides: int) -> list[int]:
    first = number // 2
    order = [(first + side) % sides for side in range(sides)]
    return order[::-1] if number % 2 else order


def _agree(times: list[float]) -> bool:
    last = times[-AGREEING:]
    return len(last) == AGREEING and max(last) <= (1 + TOLERANCE) * min(last)
