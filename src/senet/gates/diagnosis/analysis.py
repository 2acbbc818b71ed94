"""Analyse the statistics of a recording: variance by class, ranks, patterns, saturation and hidden units."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.gates.recording.record import BlockGates, HiddenUnits
from senet.gates.recording.statistics import Floats, Statistics
from senet.utils.extras import optional_import

__all__ = [
    "HiddenUnitShares",
    "Saturation",
    "adjusted_eta_squared",
    "effective_rank",
    "eta_squared",
    "f_test",
    "hidden_unit_shares",
    "saturation",
    "scale_share",
    "shuffled_rank",
]

# Below this share of the squared values, a sum of squared deviations is rounding: gates are float32, sums float64.
_ROUNDING = 1e-12


def eta_squared(statistics: Statistics) -> Floats:
    """Return the share of each channel's variance between the means of classes (one-way analysis of variance).

    Returns:
        (C,), 0 to 1; nan for a channel that does not vary, and for all if fewer than two classes have images.
    """
    between, within = _sums(statistics)
    total = between + within
    valid = (total > 0) & (_classes(statistics) > 1)
    return np.divide(between, total, out=np.full_like(total, np.nan), where=valid)


def adjusted_eta_squared(statistics: Statistics) -> Floats:
    """Return eta squared corrected for chance (epsilon squared, Kelley 1935).

    Returns:
        (C,), at most 1, and about 0 (also negative) if classes do not differ; nan where `eta_squared` is nan, and for
        all if no class has two images.
    """
    images, classes = statistics.total, _classes(statistics)
    if images <= classes:
        return np.full(statistics.channels, np.nan)
    return 1 - (1 - eta_squared(statistics)) * (images - 1) / (images - classes)


def f_test(statistics: Statistics) -> Floats:
    """Return p-values of the F test for equal means of classes, corrected for the number of channels.

    The correction controls the false discovery rate (Benjamini and Hochberg 1995): of the channels with values below
    0.05, about 5 % are false positives.

    Returns:
        (C,); nan for channels that do not vary, and for all if there are fewer than two classes, or no class has two
        images.

    Raises:
        ValueError: SciPy is missing.
    """
    stats = _scipy_stats()
    images, classes = statistics.total, _classes(statistics)
    found = np.full(statistics.channels, np.nan)
    if classes < 2 or images <= classes:
        return found
    between, within = _sums(statistics)
    varies = between + within > 0
    if not varies.any():
        return found
    with np.errstate(divide="ignore"):  # without variation within classes F is infinite and p is 0
        values = (between[varies] / (classes - 1)) / (within[varies] / (images - classes))
    found[varies] = stats.false_discovery_control(stats.f.sf(values, classes - 1, images - classes), method="bh")
    return found


def effective_rank(matrix: NDArray[Any]) -> float:
    """Return the effective rank of a matrix with centred columns (Roy and Vetterli 2007).

    It is the exponential of the entropy of the normalized singular values.

    Args:
        matrix: (S, C), such as the gates of S images.

    Returns:
        1 to min(S - 1, C); 0 if no column varies, or there are fewer than two rows.
    """
    values = np.asarray(matrix, np.float64)
    if len(values) < 2:
        return 0.0
    centred = values - values.mean(0)
    centred[:, np.square(centred).sum(0) <= _ROUNDING * np.square(values).sum(0)] = 0
    singular = np.linalg.svd(centred, compute_uv=False)
    if singular.sum() == 0:
        return 0.0
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def shuffled_rank(matrix: NDArray[Any], *, seed: int = 0) -> float:
    """Return the effective rank of a matrix whose channels are independent and keep their distributions.

    Each column is permuted independently (Horn's parallel analysis by permutation), so channels keep their variances.

    Args:
        matrix: (S, C).
        seed: seed of the permutations.
    """
    return effective_rank(np.random.default_rng(seed).permuted(np.asarray(matrix, np.float64), axis=0))


def scale_share(statistics: Statistics) -> float:
    """Return the share of the variation between the means of classes that is scaling of one pattern.

    The pattern p is the mean over all images. A class with mean m deviates by m - p; the component along p is a change
    of scale. The paper finds this in SE_5_3 (section 7.2). For isotropic deviations the share is 1 / C.

    Returns:
        0 to 1, weighted by the images of classes; nan if the means do not differ.
    """
    pattern = statistics.mean
    deviations = statistics.means - pattern
    total = float(_sums(statistics)[0].sum())
    norm = float(pattern @ pattern)
    if total == 0 or norm == 0 or _classes(statistics) < 2:
        return float("nan")
    return min(1.0, float(statistics.images @ np.square(deviations @ pattern)) / (norm * total))


@dataclass(frozen=True)
class Saturation:
    """Shares of open and closed gates of a block, 0 to 1.

    Attributes:
        on, off: share of all gates (images and channels) that are open, or closed.
        channels_on, channels_off: share of the channels that are open, or closed, for every image.
    """

    on: float
    off: float
    channels_on: float
    channels_off: float


def saturation(block: BlockGates, margin: float = 0.1) -> Saturation:
    """Return which shares of gates are open and closed.

    A gate is open if its absolute value exceeds (1 - margin) times the gate's upper limit. Gates without a limit, such
    as ReLU, are never open. A gate is closed if its absolute value is below margin times the limit, or below margin
    without a limit. Values are assumed uniform within a bin of the histogram.

    Args:
        block: the block of a recording.
        margin: share of the gate's range.
    """
    top = abs(block.gain)
    bounded = "relu" not in block.gate.lower() and block.gate != "Identity"
    gates = block.gates
    if not gates.total:
        return Saturation(*[float("nan")] * 4)
    upper, lower = (1 - margin) * top, margin * top
    least = np.where((gates.minimum <= 0) & (gates.maximum >= 0), 0, np.minimum(abs(gates.minimum), abs(gates.maximum)))
    largest = np.maximum(abs(gates.minimum), abs(gates.maximum))
    off = _between(gates, -lower, lower)
    on = 1 - _between(gates, -upper, upper) if bounded else 0.0
    channels_on = float((least >= upper).mean()) if bounded else 0.0
    return Saturation(on, off, channels_on, float((largest <= lower).mean()))


@dataclass(frozen=True)
class HiddenUnitShares:
    """Shares of the hidden units of a block, 0 to 1.

    Attributes:
        never_on, always_on: units whose input is above 0 for no image, or for every image.
        unused: units with a small contribution to the variation of the gates: standard deviation times the norm of the
            weights that read the unit, relative to the root mean square over units.
    """

    never_on: float
    always_on: float
    unused: float


def hidden_unit_shares(hidden: HiddenUnits, least: float = 0.01) -> HiddenUnitShares:
    """Return which shares of hidden units are stuck and unused.

    Args:
        hidden: the hidden units of a block.
        least: contribution below which a unit is unused, relative to the root mean square over the block's units.
    """
    on = hidden.positive / max(1, hidden.calls)
    outputs = hidden.outputs
    variance = outputs.variance + (0 if outputs.space_variance is None else outputs.space_variance)
    variance = np.where(variance <= _ROUNDING * np.square(outputs.mean), 0, variance)
    contribution = np.sqrt(variance) * hidden.weights
    scale = float(np.sqrt(np.square(contribution).mean()))
    unused = contribution <= least * scale
    return HiddenUnitShares(float((on == 0).mean()), float((on == 1).mean()), float(unused.mean()))


def _between(statistics: Statistics, low: float, high: float) -> float:
    """Return the share of all values between two numbers, from the histogram and the extremes."""
    edges = statistics.edges.astype(np.float64).copy()
    # The first and the last bin include values outside of the edges.
    edges[0] = min(edges[0], float(statistics.minimum.min()))
    edges[-1] = max(edges[-1], float(statistics.maximum.max()))
    counts = statistics.histogram.sum(0)
    inside = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
    width = np.diff(edges)
    shares = np.divide(inside, width, out=np.zeros_like(width), where=width > 0)
    return float(counts @ shares / max(1, counts.sum()))


def _sums(statistics: Statistics) -> tuple[Floats, Floats]:
    """Return the sums of squared deviations between and within classes, without rounding errors."""
    floor = _ROUNDING * statistics.total * np.square(statistics.mean)
    between, within = statistics.between, statistics.within
    varies = between + within > floor
    return np.where(varies, between, 0), np.where(varies, within, 0)


def _classes(statistics: Statistics) -> int:
    """Return the number of classes with images."""
    return int((statistics.images > 0).sum())


def _scipy_stats() -> Any:
    with optional_import("report", "the F test needs SciPy"):
        from scipy import stats
    return stats
