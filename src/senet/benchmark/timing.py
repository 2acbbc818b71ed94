"""Time interleaved steps, so that a machine that slows down affects all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from senet.utils.arguments import argument_name
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
    "alternate",
    "check_length",
    "clock_for",
    "interleave",
]

# Each call returns a point in time; the difference of two points is a number of seconds.
Clock = Callable[[], Any]

# Warm-up ends when the last AGREEING times of each network differ by at most TOLERANCE of the least, or at LIMIT.
AGREEING = 3
TOLERANCE = 0.1
LIMIT = 15
# Minimum seconds of a turn; short steps are repeated, since clocks and schedulers are coarse.
TURN = 0.1
# Minimum number of rounds when it follows from the seconds.
FEWEST_ROUNDS = 9


class CudaEvent:
    """A point in the work queued on the current CUDA stream, recorded on creation.

    The difference of two events is the device time between them in seconds, and waits for the later event. The host
    therefore waits once per turn, and queues the next step during the previous one, as in training.
    """

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record()

    def __sub__(self, earlier: "CudaEvent") -> float:
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) / 1000


def clock_for(device: str) -> Clock:
    """Return the clock for a device: CUDA events for "cuda", otherwise the host's clock."""
    return CudaEvent if device == "cuda" else time.perf_counter


@dataclass(frozen=True)
class Times:
    """Times of several networks by round.

    Attributes:
        seconds: (rounds, networks), time of one step.
        steps: number of steps in a turn.
        warm_up: number of warm-up turns of each network.
        steady: whether the times of each network agreed at the end of the warm-up.
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
    """Time steps of several networks, interleaved.

    The order is reversed in every other round, and the first network changes, so that no network always follows the
    same other one.

    Args:
        sides: functions that each run one step of a network.
        clock: returns points in time, see `clock_for`.
        rounds: number of rounds; by default as many as fit into `seconds`, and 9 or more.
        seconds: time of all rounds, without the warm-up.
        warm_up: maximum number of warm-up turns of each network.
        progress: shows progress.

    Raises:
        ValueError: `rounds` below 1, or `seconds` not above 0 or not finite.
    """

    def turn(side: int, steps: int) -> float:
        start = clock()
        for _ in range(steps):
            sides[side]()
        return float(clock() - start) / steps

    return alternate(turn, len(sides), rounds=rounds, seconds=seconds, warm_up=warm_up, progress=progress)


def alternate(
    turn: Callable[[int, int], float],
    sides: int,
    *,
    rounds: int | None = None,
    seconds: float = 60.0,
    warm_up: int = LIMIT,
    progress: Progress = no_progress,
) -> Times:
    """Run turns of several networks alternately, see `interleave`.

    Args:
        turn: takes the number of a network and of steps, runs them, and returns the seconds of one.
        sides: number of networks.
        rounds, seconds, warm_up, progress: see `interleave`.

    Raises:
        ValueError: see `check_length`.
    """
    check_length(rounds, seconds)
    warm: list[list[float]] = [[] for _ in range(sides)]
    steady = False
    for number in progress(range(warm_up), warm_up, "warm up"):
        if steady:
            continue  # completes the progress bar
        for side in _order(number, sides):
            warm[side].append(turn(side, 1))
        steady = all(_agree(times) for times in warm)
    step = [float(np.median(times[-AGREEING:])) for times in warm]
    steps = max(1, ceil(TURN / max(min(step), 1e-6)))
    if rounds is None:
        rounds = max(FEWEST_ROUNDS, int(seconds / max(steps * sum(step), 1e-6)))
    found = np.empty((rounds, sides))
    for number in progress(range(rounds), rounds, "measure"):
        for side in _order(number, sides):
            found[number, side] = turn(side, steps)
    return Times(found, steps, len(warm[0]), steady)


def check_length(rounds: int | None, seconds: float) -> None:
    """Check the number of rounds and the seconds of a measurement.

    Raises:
        ValueError: `rounds` is below 1 or above the limit, or `seconds` is not above 0 or not finite.
    """
    if rounds is not None and rounds < 1:
        raise ValueError(f"{argument_name('rounds')} must be 1 or more, got {rounds}")
    check_at_most("rounds", rounds, MOST_ROUNDS)
    if not 0 < seconds < inf:
        raise ValueError(f"{argument_name('seconds')} must be above 0 and finite, got {seconds}")


def _order(number: int, sides: int) -> list[int]:
    first = number // 2
    order = [(first + side) % sides for side in range(sides)]
    return order[::-1] if number % 2 else order


def _agree(times: list[float]) -> bool:
    last = times[-AGREEING:]
    return len(last) == AGREEING and max(last) <= (1 + TOLERANCE) * min(last)
