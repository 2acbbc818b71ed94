"""Whether arms of a study differ, from runs with the same seeds: paired tests, corrected for their number, and power.

The same seed gives the same order of data and the same initial plain weights in every arm, so that what two runs of one
seed have in common cancels in their difference: tests are on differences by seed. Errors are in percent, and
differences in points of percent; below 0, the arm is better than what it is compared to.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.runs.comparison import Estimate, estimate
from senet.utils.extras import install_command

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
# Beyond this, a number of seeds is no plan any more.
MOST_SEEDS = 10_000
# Two-sided, n signs give no p value below 2 / 2**n.
LEAST_FOR_WILCOXON = math.floor(1 - math.log2(ALPHA)) + 1
# Digits of percent: errors are counts over images, and equal ones are to be equal.
_DIGITS = 9


@dataclass(frozen=True)
class Paired:
    """Differences of an arm to another, one for each seed that both have.

    Attributes:
        seeds: in common.
        values: of the arm less the other's, by seed.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]

    @cached_property
    def estimate(self) -> Estimate:
        """The mean with half of its 95 % t interval; NaN for one seed alone."""
        return estimate(np.array(self.values))

    @property
    def mean(self) -> float:
        """Of the differences."""
        return float(self.estimate.mean)

    @property
    def deviation(self) -> float:
        """Standard deviation of the differences; NaN for one seed alone."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def constant(self) -> bool:
        """Whether all differences are the same, so that nothing tells how they would vary."""
        return len(set(self.values)) == 1

    @cached_property
    def t_p(self) -> float | None:
        """Of the paired t test, two-sided; None for one seed, and where all differences are the same."""
        if self.constant:
            return None
        return float(_scipy().ttest_1samp(self.values, 0.0).pvalue)

    @cached_property
    def wilcoxon_p(self) -> float | None:
        """Of Wilcoxon's signed rank test, two-sided and exact; None where it could not come below 0.05.

        Differences of zero are left out; equal ones share their ranks, and every sign is tried.
        """
        values = [value for value in self.values if value]
        if len(values) < LEAST_FOR_WILCOXON:
            return None
        return _signed_rank_p(np.array(values))


@dataclass(frozen=True)
class Agreement:
    """How far two orders of the same arms agree.

    Attributes:
        arms: that were ordered.
        tau: Kendall's tau-b: 1 is the same order, -1 the reverse; None with fewer than two arms, or all equal.
        p: of no relation; None without tau.
    """

    arms: int
    tau: float | None
    p: float | None


def paired(arm: Mapping[int, float], other: Mapping[int, float]) -> Paired | None:
    """Differences of an arm's errors to another's.

    Args:
        arm: errors by seed, in percent.
        other: the same.

    Returns:
        None where they have no seed in common.

    Raises:
        ValueError: an error that is not finite.
    """
    for errors in (arm, other):
        for seed, error in errors.items():
            if not math.isfinite(error):
                raise ValueError(f"the error of seed {seed} is {error}; leave out runs that have no finite error")
    seeds = tuple(sorted(arm.keys() & other.keys()))
    if not seeds:
        return None
    # + 0.0: no minus zero.
    return Paired(seeds, tuple(round(arm[seed] - other[seed], _DIGITS) + 0.0 for seed in seeds))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: below alpha, the chance of even one false finding among them is below alpha.

    Args:
        p_values: of as many tests.

    Returns:
        Corrected p values, in the same order.

    Raises:
        ValueError: one is not between 0 and 1.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"a p value is between 0 and 1, got {p}")
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def agreement(measured: Sequence[float], paper: Sequence[float]) -> Agreement:
    """Kendall's tau of arms by what is measured, and by the paper.

    Args:
        measured: an error for each arm.
        paper: the same, of the same arms.

    Raises:
        ValueError: not as many.
    """
    if len(measured) != len(paper):
        raise ValueError(f"the same arms are to be ordered, got {len(measured)} and {len(paper)}")
    rounded = [round(error, _DIGITS) for error in measured]
    if len(set(rounded)) < 2 or len(set(paper)) < 2:
        return Agreement(len(paper), None, None)
    found = _scipy().kendalltau(rounded, paper)
    return Agreement(len(paper), float(found.statistic), float(found.pvalue))


def power(effect: float, seeds: int, alpha: float) -> float:
    """The chance that a two-sided paired t test finds a difference.

    The square of t is F with one degree of freedom: its noncentral distribution has both sides of t in one tail, and
    stays finite where the noncentral t distribution of scipy does not.

    Args:
        effect: the true mean of the differences over their standard deviation.
        seeds: two or more.
        alpha: of the test.

    Raises:
        ValueError: fewer seeds.
    """
    if seeds < 2:
        raise ValueError(f"a paired test needs 2 seeds or more, got {seeds}")
    if not effect:  # of which scipy's noncentral F makes -0.95
        return alpha
    stats = _scipy()
    return float(stats.ncf.sf(stats.f.isf(alpha, 1, seeds - 1), 1, seeds - 1, seeds * effect**2))


def seeds_needed(effect: float, alpha: float) -> int | None:
    """About how many seeds a paired t test needs to find a difference with a chance of 80 %.

    Args:
        effect: the mean of the differences over their standard deviation, taken for the truth; of few seeds it is a
            rough guess, and so is what follows from it.
        alpha: of the test.

    Returns:
        The least number, 2 or more; None where more than `MOST_SEEDS` would be needed, as for no effect at all.
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
    """The least true difference that a paired t test finds with a chance of 80 %.

    Args:
        deviation: of the differences between seeds.
        seeds: two or more.
        alpha: of the test.
    """
    low, high = 0.0, 1.0
    while power(high, seeds, alpha) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, seeds, alpha) >= POWER else (middle, high)
    return high * deviation


def _signed_rank_p(values: NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed rank test: every choice of signs is as likely, and all of them are counted.

    scipy's own takes the normal distribution as soon as there are ties and more than 13 values.

    Args:
        values: differences but for zeros.
    """
    # Shared ranks are halves; doubled, they are whole numbers, and so are their sums.
    ranks = (2 * _scipy().rankdata(np.abs(values))).astype(int)
    chances = np.zeros(ranks.sum() + 1)
    chances[0] = 1
    for rank in ranks:  # with either sign, half of the chance each
        chances[rank:] += chances[:-rank].copy()
        chances /= 2
    far = np.abs(2 * np.arange(len(chances)) - ranks.sum())
    here = abs(2 * ranks[values > 0].sum() - ranks.sum())
    return min(1.0, float(chances[far >= here].sum()))


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise ValueError(f"tests over seeds need scipy: {install_command('study')}") from error
    return stats
