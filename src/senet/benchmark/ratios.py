"""Ratios of times: median, quartiles, bootstrap interval, and whether they are conclusive."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from senet.utils.bootstrap import percentile_interval, resampled_statistics

__all__ = ["FEWEST", "PRECISION", "Ratio", "ratio"]

# Largest distance of the ends of the interval from the median, relative to it, for a conclusive ratio.
PRECISION = 0.05
# With fewer values, even their whole range is not a 95 % interval of the median: 1 - 2 / 2^5 is 94 %.
FEWEST = 6
_SAMPLES = 10_000


@dataclass(frozen=True)
class Ratio:
    """The ratio of the times of two networks, by round.

    Attributes:
        median: median over the rounds.
        quartiles: first and third quartile.
        interval: 95 % bootstrap interval of the median (percentiles of the medians of 10,000 seeded resamples).
        rounds: number of rounds.
    """

    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float]
    rounds: int

    @property
    def conclusive(self) -> bool:
        """Whether the spread is narrow enough."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why the ratio is inconclusive, and the remedy; otherwise empty."""
        if self.rounds < FEWEST:
            return f"{self.rounds} rounds are too few for a 95 % interval; give {FEWEST} rounds or more"
        low, high = self.interval
        if max(high - self.median, self.median - low) <= PRECISION * self.median:
            return ""
        return (
            f"the 95 % interval of the ratio, {low:.3f} to {high:.3f}, reaches more than {100 * PRECISION:.0f} % from "
            f"its median {self.median:.3f}; give more rounds or seconds, on a machine that does nothing else"
        )


def ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> Ratio:
    """Compute the ratio of the times of two networks.

    Args:
        above: (rounds,), seconds of the numerator.
        below: (rounds,), seconds of the denominator, in the same rounds.

    Raises:
        ValueError: there are no rounds, the shapes differ, or a time is not above 0.
    """
    if above.shape != below.shape or above.ndim != 1 or not above.size:
        raise ValueError(f"need a time of both in each of 1 round or more, got shapes {above.shape} and {below.shape}")
    if not (np.all(above > 0) and np.all(below > 0)):
        raise ValueError("times must be above 0 seconds: the clock did not move in a step")
    ratios = above / below
    # The fixed seed makes the interval a function of the times.
    medians = resampled_statistics(ratios, np.median, _SAMPLES, np.random.default_rng(0))
    first, median, third = np.quantile(ratios, [0.25, 0.5, 0.75])
    return Ratio(float(median), (float(first), float(third)), percentile_interval(medians), ratios.size)
