"""Paired tests of arms with the same seeds, corrected for the number of tests, and their power.

A seed gives the same order of data and the same initial plain weights in every arm. The variation that two runs of one
seed share cancels in their difference, so tests are on differences by seed. Errors are in percent, differences in
percentage points; below 0, the arm is better than its baseline.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.runs.comparison import Estimate, estimate
from senet.utils.extras import optional_import

__all__ = [
    "ALPHA",
    "LEAST_FOR_WILCOXON",
    "MOST_SEEDS",
    "POWER",
    "Agreement",
    "Paired",
    "agreement",
    "detectable",
    "holm",
    "paired",
    "power",
    "seeds_needed",
]

ALPHA = 0.05
POWER = 0.8
# More seeds than this are not searched for.
MOST_SEEDS = 10_000
# The smallest two-sided p value of n signs is 2 / 2**n.
LEAST_FOR_WILCOXON = math.floor(1 - math.log2(ALPHA)) + 1
# Decimals of errors in percent: errors are counts over images, and rounding makes equal counts equal.
_DIGITS = 9


@dataclass(frozen=True)
class Paired:
    """Differences between two arms, one for each seed that both have.

    Attributes:
        seeds: seeds in common.
        values: error of the arm minus error of the baseline, by seed.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]

    @cached_property
    def estimate(self) -> Estimate:
        """The mean with half of its 95 % t interval, which is NaN for one seed."""
        return estimate(np.array(self.values))

    @property
    def mean(self) -> float:
        """Mean of the differences."""
        return float(self.estimate.mean)

    @property
    def deviation(self) -> float:
        """Standard deviation of the differences; NaN for one seed."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def constant(self) -> bool:
        """Whether all differences are equal, so that their variance is unknown."""
        return len(set(self.values)) == 1

    @cached_property
    def t_p(self) -> float | None:
        """Two-sided p value of the paired t test; None where all differences are equal, as for one seed."""
        if self.constant:
            return None
        return float(_scipy().ttest_1samp(self.values, 0.0).pvalue)

    @cached_property
    def wilcoxon_p(self) -> float | None:
        """Exact two-sided p value of Wilcoxon's signed rank test; None where it cannot be below 0.05.

        Differences of zero are omitted, equal ones share their rank, and all signs are enumerated.
        """
        values = [value for value in self.values if value]
        if len(values) < LEAST_FOR_WILCOXON:
            return None
        return _signed_rank_p(np.array(values))


@dataclass(frozen=True)
class Agreement:
    """Agreement of two orders of the same arms.

    Attributes:
        arms: number of arms.
        tau: Kendall's tau-b: 1 is the same order, -1 the reverse; None for fewer than two different errors.
        p: p value of tau under no association; None without tau.
    """

    arms: int
    tau: float | None
    p: float | None


def paired(arm: Mapping[int, float], other: Mapping[int, float]) -> Paired | None:
    """Return the differences between two arms by seed.

    Args:
        arm: errors by seed, in percent.
        other: errors of the baseline by seed, in percent.

    Returns:
        The differences; None without a seed in common.

    Raises:
        ValueError: an error is not finite.
    """
    for errors in (arm, other):
        for seed, error in errors.items():
            if not math.isfinite(error):
                raise ValueError(f"the error of seed {seed} is {error}; leave out runs without a finite error")
    seeds = tuple(sorted(arm.keys() & other.keys()))
    if not seeds:
        return None
    # + 0.0 turns -0.0 into 0.0.
    return Paired(seeds, tuple(round(arm[seed] - other[seed], _DIGITS) + 0.0 for seed in seeds))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down method, which bounds the chance of any false positive.

    Args:
        p_values: p values of the tests.

    Returns:
        Corrected p values, in the same order.

    Raises:
        ValueError: a p value is not between 0 and 1.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p values must be between 0 and 1, got {p}")
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def agreement(measured: Sequence[float], paper: Sequence[float]) -> Agreement:
    """Compare the order of arms with the paper's by Kendall's tau.

    Args:
        measured: measured error of each arm.
        paper: the paper's error of each arm.

    Raises:
        ValueError: the numbers of arms differ.
    """
    if len(measured) != len(paper):
        raise ValueError(f"expected as many errors of the paper as measured ones, got {len(measured)} and {len(paper)}")
    rounded = [round(error, _DIGITS) for error in measured]
    if len(set(rounded)) < 2 or len(set(paper)) < 2:
        return Agreement(len(paper), None, None)
    found = _scipy().kendalltau(rounded, paper)
    return Agreement(len(paper), float(found.statistic), float(found.pvalue))


def power(effect: float, seeds: int, alpha: float) -> float:
    """Return the power of a two-sided paired t test: the probability that it detects a difference.

    The square of t has an F distribution with one degree of freedom. Its noncentral form has both sides of t in one
    tail, and stays finite where scipy's noncentral t distribution does not.

    Args:
        effect: true mean of the differences divided by their standard deviation.
        seeds: number of seeds, 2 or more.
        alpha: significance level.

    Raises:
        ValueError: fewer seeds.
    """
    if seeds < 2:
        raise ValueError(f"a paired test needs 2 seeds or more, got {seeds}")
    if not effect:  # for which scipy's noncentral F gives -0.95
        return alpha
    stats = _scipy()
    return float(stats.ncf.sf(stats.f.isf(alpha, 1, seeds - 1), 1, seeds - 1, seeds * effect**2))


def seeds_needed(effect: float, alpha: float) -> int | None:
    """Return the number of seeds with which a paired t test detects a difference with a power of 80 %.

    Args:
        effect: mean of the differences divided by their standard deviation. It is a rough estimate for few seeds, and
            so is the result.
        alpha: significance level.

    Returns:
        The smallest number, 2 or more; None above `MOST_SEEDS`, as for an effect of 0.
    """
    low, high = 1, 2
    while power(effect, high, alpha) < POWER:
        if high >= MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, alpha) >= POWER else (middle, high)
    return high


def detectable(deviation: float, seeds: int, alpha: float) -> float:
    """Return the smallest true difference that a paired t test detects with a power of 80 %.

    Args:
        deviation: standard deviation of the differences, in points.
        seeds: number of seeds, 2 or more.
        alpha: significance level.

    Returns:
        The difference in points.
    """
    low, high = 0.0, 1.0
    while power(high, seeds, alpha) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, seeds, alpha) >= POWER else (middle, high)
    return high * deviation


def _signed_rank_p(values: NDArray[np.float64]) -> float:
    """Return the two-sided p value of Wilcoxon's signed rank test, enumerating all choices of signs.

    scipy uses the normal approximation for more than 13 values with ties.

    Args:
        values: differences without zeros.
    """
    # Shared ranks are multiples of 1/2; doubled, ranks and their sums are whole numbers.
    ranks = (2 * _scipy().rankdata(np.abs(values))).astype(int)
    chances = np.zeros(ranks.sum() + 1)
    chances[0] = 1
    for rank in ranks:  # each sign has a probability of 1/2
        chances[rank:] += chances[:-rank].copy()
        chances /= 2
    far = np.abs(2 * np.arange(len(chances)) - ranks.sum())
    here = abs(2 * ranks[values > 0].sum() - ranks.sum())
    return min(1.0, float(chances[far >= here].sum()))


def _scipy() -> Any:
    with optional_import("study", "tests over seeds need SciPy"):
        from scipy import stats
    return stats
