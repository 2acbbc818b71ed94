"""What the figures of a recording say: shares of variance by class, ranks, patterns, and where gates are saturated."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.gates.recording.record import BlockGates, HiddenUnits
from senet.gates.recording.statistics import Floats, Statistics
from senet.utils.extras import install_command

__all__ = [
    "HiddenShares",
    "Levels",
    "adjusted_eta_squared",
    "effective_rank",
    "eta_squared",
    "f_test",
    "gate_levels",
    "hidden_shares",
    "scale_share",
    "shuffled_rank",
]

# A sum of squared deviations that is less of the squared values than this is rounding: float32 gates, float64 sums.
_ROUNDING = 1e-12


def eta_squared(statistics: Statistics) -> Floats:
    """The share of each channel's variance that lies between the means of classes: one-way analysis of variance.

    Returns:
        (C,), 0 to 1; nan for a channel that does not vary, and for all where fewer than two classes have images.
    """
    between, within = _sums(statistics)
    total = between + within
    valid = (total > 0) & (_classes(statistics) > 1)
    return np.divide(between, total, out=np.full_like(total, np.nan), where=valid)


def adjusted_eta_squared(statistics: Statistics) -> Floats:
    """Eta squared less what as many classes of as few images have by chance (epsilon squared: Kelley 1935).

    Returns:
        (C,), at most 1, and about 0 (also below) where classes are alike; nan where `eta_squared` is, and for all where
        no class has two images.
    """
    images, classes = statistics.total, _classes(statistics)
    if images <= classes:
        return np.full(statistics.channels, np.nan)
    return 1 - (1 - eta_squared(statistics)) * (images - 1) / (images - classes)


def f_test(statistics: Statistics) -> Floats:
    """Whether the means of classes differ more than by chance: p values of the F test, corrected for the channels.

    The correction is Benjamini and Hochberg's (1995): of the channels with values below 0.05, about 5 % are there by
    chance.

    Returns:
        (C,); nan for channels that do not vary, and for all where there are fewer than two classes, or no class has two
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
    with np.errstate(divide="ignore"):  # no variation within classes: F is infinite, and p is 0
        values = (between[varies] / (classes - 1)) / (within[varies] / (images - classes))
    found[varies] = stats.false_discovery_control(stats.f.sf(values, classes - 1, images - classes), method="bh")
    return found


def effective_rank(matrix: NDArray[Any]) -> float:
    """In how many directions the rows of a matrix lie, less their mean (Roy and Vetterli 2007).

    It is the exponential of the entropy of the singular values, as shares of their sum.

    Args:
        matrix: (S, C), such as the gates of S images.

    Returns:
        1 to min(S - 1, C); 0 where no column varies, or there are fewer than two rows.
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
    """The effective rank that a random matrix of this size has: one whose channels have nothing to do with each other.

    Each column keeps its values, in an order of its own (Horn's parallel analysis, by permutation), so that channels
    which vary more do so here as well.

    Args:
        matrix: (S, C).
        seed: of the orders.
    """
    return effective_rank(np.random.default_rng(seed).permuted(np.asarray(matrix, np.float64), axis=0))


def scale_share(statistics: Statistics) -> float:
    """The share of the variation between the means of classes that is one pattern made larger and smaller.

    The pattern is the mean over all images, p: a class with the mean m deviates by m - p, of which the part along p is
    a change of scale. This is what the paper finds in SE_5_3 (section 7.2); of deviations in all directions alike it
    would be 1 / C.

    Returns:
        0 to 1, weighted by the images of classes; nan where the means do not differ.
    """
    pattern = statistics.mean
    deviations = statistics.means - pattern
    total = float(_sums(statistics)[0].sum())
    norm = float(pattern @ pattern)
    if total == 0 or norm == 0 or _classes(statistics) < 2:
        return float("nan")
    return min(1.0, float(statistics.images @ np.square(deviations @ pattern)) / (norm * total))


@dataclass(frozen=True)
class Levels:
    """Where the gates of a block are: shares of 0 to 1.

    Attributes:
        on, off: of all gates, of all images and channels, at the upper end of the gate and at 0.
        channels_on, channels_off: of the channels, whose gate is there for every image.
    """

    on: float
    off: float
    channels_on: float
    channels_off: float


def gate_levels(block: BlockGates, margin: float = 0.1) -> Levels:
    """How many gates are open and how many are closed.

    Open is a size above (1 - margin) times the largest that the gate can give; a gate without such an end, as ReLU, is
    never open in this sense. Closed is a size below margin times that end, or margin itself. Within a bin of the
    histogram, values are taken as evenly spread.

    Args:
        block: of the recording.
        margin: share of the gate's range.
    """
    top = abs(block.gain)
    bounded = "relu" not in block.gate.lower() and block.gate != "Identity"
    gates = block.gates
    if not gates.total:
        return Levels(*[float("nan")] * 4)
    upper, lower = (1 - margin) * top, margin * top
    least = np.where((gates.minimum <= 0) & (gates.maximum >= 0), 0, np.minimum(abs(gates.minimum), abs(gates.maximum)))
    largest = np.maximum(abs(gates.minimum), abs(gates.maximum))
    off = _between(gates, -lower, lower)
    on = 1 - _between(gates, -upper, upper) if bounded else 0.0
    channels_on = float((least >= upper).mean()) if bounded else 0.0
    return Levels(on, off, channels_on, float((largest <= lower).mean()))


@dataclass(frozen=True)
class HiddenShares:
    """What the hidden units of a block do: shares of 0 to 1 of its units.

    Attributes:
        never_on, always_on: whose input is above 0 for no image, or for every image.
        unused: that have no say in what varies: deviation times the length of the weights that read the unit is below a
            share of the root mean square of that over units.
    """

    never_on: float
    always_on: float
    unused: float


def hidden_shares(hidden: HiddenUnits, least: float = 0.01) -> HiddenShares:
    """How many hidden units are stuck, and how many matter.

    Args:
        hidden: of a block.
        least: contribution below which a unit is unused, relative to the root mean square over the block's units.
    """
    on = hidden.positive / max(1, hidden.calls)
    outputs = hidden.outputs
    variance = outputs.variance + (0 if outputs.space_variance is None else outputs.space_variance)
    variance = np.where(variance <= _ROUNDING * np.square(outputs.mean), 0, variance)
    contribution = np.sqrt(variance) * hidden.weights
    scale = float(np.sqrt(np.square(contribution).mean()))
    unused = contribution <= least * scale
    return HiddenShares(float((on == 0).mean()), float((on == 1).mean()), float(unused.mean()))


def _between(statistics: Statistics, low: float, high: float) -> float:
    """The share of all values that lie between two numbers, by the histogram and the extremes."""
    edges = statistics.edges.astype(np.float64).copy()
    # Values outside of the edges are in the first and the last bin.
    edges[0] = min(edges[0], float(statistics.minimum.min()))
    edges[-1] = max(edges[-1], float(statistics.maximum.max()))
    counts = statistics.histogram.sum(0)
    # The bins of the ends are as wide as the values in them, not more.
    inside = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
    width = np.diff(edges)
    shares = np.divide(inside, width, out=np.zeros_like(width), where=width > 0)
    return float(counts @ shares / max(1, counts.sum()))


def _sums(statistics: Statistics) -> tuple[Floats, Floats]:
    """Sums of squared deviations between and within classes; 0 where they are rounding."""
    floor = _ROUNDING * statistics.total * np.square(statistics.mean)
    between, within = statistics.between, statistics.within
    varies = between + within > floor
    return np.where(varies, between, 0), np.where(varies, within, 0)


def _classes(statistics: Statistics) -> int:
    """Classes that have images."""
    return int((statistics.images > 0).sum())


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise ValueError(f"the F test needs SciPy: {install_command('report')}") from error
    return stats
