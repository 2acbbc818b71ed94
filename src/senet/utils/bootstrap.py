"""Compute percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["percentile_interval", "resampled_statistics"]

# The number of indices drawn at once: 16 MB of indices, and as many bytes of values.
CHUNK = 2**21


def resampled_statistics(
    values: NDArray[np.float64], statistic: Callable[..., Any], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Compute a statistic of resamples with replacement.

    Resamples are drawn in chunks to bound the memory. The result does not depend on the size of the chunks.

    Args:
        values: (N,), one value or more.
        statistic: a function of NumPy with the argument `axis`, such as `numpy.mean`.
        resamples: the number of resamples.
        generator: the source of randomness.

    Returns:
        (resamples,), the statistic of each.
    """
    rows = max(1, CHUNK // len(values))
    parts = []
    for start in range(0, resamples, rows):
        indices = generator.integers(0, len(values), (min(rows, resamples - start), len(values)))
        parts.append(statistic(values[indices], axis=1))
    return np.concatenate(parts)


def percentile_interval(
    distribution: NDArray[np.float64], confidence: float = 0.95, *, one_sided: bool = False
) -> tuple[float, float]:
    """Return the interval that holds a share of a bootstrap distribution.

    Args:
        distribution: (resamples,), the statistic of each resample.
        confidence: the share, between 0 and 1.
        one_sided: whether the interval extends to minus infinity, so that its upper end is an upper bound.
    """
    if one_sided:
        return -np.inf, float(np.quantile(distribution, confidence))
    low, high = np.quantile(distribution, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
