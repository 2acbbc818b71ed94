"""Bound the change of error by Tango's score interval, the criterion of `plan_fold` and of the advice to fold.

The change is measured on the same images before and after. Tango's interval for the difference of paired proportions
(Statistics in Medicine 17, 1998, 891 to 908) holds the changes that a score test does not reject.
"""

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

__all__ = ["CONFIDENCE", "MAX_DROP", "Interval", "change_interval", "images_needed", "smallest_bound"]

# The default budget in percentage points of top-1 error: 0.2 allows a drop of the accuracy from 76.0 % to 75.8 %.
MAX_DROP = 0.2
# The default confidence of a one-sided bound.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float


def smallest_bound(images: int, confidence: float) -> float:
    """Return the lowest upper bound possible with this many images, in percentage points: if no image changes."""
    return change_interval(0, 0, images, confidence).high


def change_interval(worse: float, better: float, images: int, confidence: float) -> Interval:
    """Return the change of error in percentage points, with Tango's score bounds.

    Args:
        worse: number of images that became wrong.
        better: number of images that became right.
        images: number of all images.
        confidence: confidence of each one-sided bound.
    """
    high = _upper(worse, better, images, confidence)
    low = -_upper(better, worse, images, confidence)
    return Interval(100 * (worse - better) / images, 100 * low, 100 * high)


def images_needed(worse: float, better: float, images: int, max_drop: float, confidence: float) -> int | None:
    """Return how many images would bring the upper bound within a budget, if images keep changing at the same rate.

    This is about z^2 (q - d^2) / (m - d)^2, with the share q of images that changed, the change d and the budget m as
    shares; and z^2 (1 - m) / m if none changed. The bound is inverted numerically, so small numbers are exact too.

    Args:
        worse, better, images: as for `change_interval`.
        max_drop: the budget in percentage points.
        confidence: confidence of the bound.

    Returns:
        The number of images; None if the change itself is not below the budget.
    """
    budget = max_drop / 100
    if (worse - better) / images >= budget:
        return None
    above, below = 1.0, 1.0  # factors of the number of images
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
    """Return the largest change, as a share, that a score test does not reject (Tango 1998, section 3)."""
    z = NormalDist().inv_cdf(confidence)
    low, high = (worse - better) / images, 1.0
    for _ in range(60):
        change = (low + high) / 2
        a = 2 * images
        b = -worse - better + (2 * images - worse + better) * change
        c = -better * change * (1 - change)
        share = (sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # of images that become right under this change
        variance = images * (2 * share + change * (1 - change))
        if variance > 0 and (worse - better - images * change) ** 2 >= z * z * variance:
            high = change
        else:
            low = change
    return high
