"""The rule by which a block may be folded, in `plan_fold` and in advice: a bound on the change of error, and a budget.

The change is measured on the same images before and after, and its bounds are Tango's for paired proportions
(Statistics in Medicine 17, 1998, 891 to 908). They are score bounds: the changes that a test would not refuse. Gates
that cannot vary, or that are the same for every image to the last bit, change nothing and need no bound.
"""

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

__all__ = ["CONFIDENCE", "MAX_DROP", "Interval", "change_interval", "images_needed", "least_bound"]

# The budget that a bound is compared with, in percentage points of top-1 error: 0.2 is 76.0 % to 75.8 % accuracy.
MAX_DROP = 0.2
# Of a bound, one-sided.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value, and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def least_bound(images: int, confidence: float) -> float:
    """The lowest upper bound that so many images can give, in percentage points: that of no change at all."""
    return change_interval(0, 0, images, confidence).high


def change_interval(worse: float, better: float, images: int, confidence: float) -> Interval:
    """How much the error changes, in percentage points, from how many images changed: Tango's score bounds.

    Args:
        worse: how many images were right and became wrong.
        better: how many were wrong and became right.
        images: of all.
        confidence: of each bound by itself.
    """
    high = _upper(worse, better, images, confidence)
    low = -_upper(better, worse, images, confidence)
    return Interval(100 * (worse - better) / images, 100 * low, 100 * high)


def images_needed(worse: float, better: float, images: int, max_drop: float, confidence: float) -> int | None:
    """How many images would bring the upper bound within a budget, if they changed as often as those that were seen.

    About z^2 (q - d^2) / (m - d)^2, with q the share of images that changed, d the change and m the budget as shares;
    and z^2 (1 - m) / m where none changed. The bound itself is inverted, so this is exact where images are few too.

    Returns:
        The number; None where the change itself is not below the budget, and no number would do.
    """
    budget = max_drop / 100
    if (worse - better) / images >= budget:
        return None
    above, below = 1.0, 1.0  # times as many images
    while _upper(worse * above, better * above, images * above, confidence) > budget:
        above *= 2
    while _upper(worse * below, better * below, images * below, confidence) <= budget:
        below /= 2
    for _ in range(60):
        middle = (above + below) / 2
        if _upper(worse * middle, better * middle, images * middle, confidence) > budget:
            below = middle
        else:
            above = middle
    return ceil(images * above - 1e-6)


def _upper(worse: float, better: float, images: float, confidence: float) -> float:
    """The largest change, as a share, that a score test at this confidence does not refuse (Tango 1998, section 3)."""
    z = NormalDist().inv_cdf(confidence)
    low, high = (worse - better) / images, 1.0
    for _ in range(60):
        change = (low + high) / 2
        a = 2 * images
        b = -worse - better + (2 * images - worse + better) * change
        c = -better * change * (1 - change)
        share = (sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # of images that become right, at that change
        variance = images * (2 * share + change * (1 - change))
        if variance > 0 and (worse - better - images * change) ** 2 >= z * z * variance:
            high = change
        else:
            low = change
    return high
