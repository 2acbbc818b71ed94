"""Figures of a quantity of each channel over images, by class: one pass, float64, and parts that merge exactly.

Welford's recurrence in the form for groups (Chan, Golub and LeVeque 1979): means and sums of squared deviations of two
groups give those of both. Classes are such groups, so the figures over all images follow from those by class.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["BINS", "Counts", "Floats", "Statistics", "bounded_edges", "unbounded_edges"]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 64
# Of quantities without bounds: bins are about as wide as near 0 up to here, and grow in proportion beyond ...
_LINEAR = 0.1
# ... up to here, where the last bin takes what is larger.
_LARGEST = 1000.0
# Values that are counted at once.
_AT_ONCE = 1 << 22


def bounded_edges(low: float, high: float) -> Floats:
    """(65,): edges of 64 equal bins of a quantity that stays between two bounds, in either order."""
    return np.linspace(min(low, high), max(low, high), BINS + 1)


def unbounded_edges(*, negative: bool) -> Floats:
    """Edges of bins of equal width in asinh(x / 0.1), up to 1,000: about equal near 0, and in proportion far from it.

    Args:
        negative: whether there may be values below 0: then as many bins, in mirror image, are there too.

    Returns:
        (65,) from 0 on; (129,) with those below 0.
    """
    above: Floats = _LINEAR * np.sinh(np.linspace(0, np.arcsinh(_LARGEST / _LINEAR), BINS + 1))
    return np.concatenate((-above[:0:-1], above)) if negative else above


@dataclass
class Statistics:
    """A quantity of C channels, such as the gates of a block, over images of K classes.

    For the squeeze "none" an image has a gate at each position: `means`, `squares` and what follows from them are of an
    image's mean over space; `space` is the variance within an image; extremes and histogram are over all positions.

    Attributes:
        images: (K,), images of each class.
        means: (K, C), over the images of a class; 0 where it has none.
        squares: (K, C), sums of squared deviations from these.
        minimum, maximum: (C,).
        histogram: (C, B), how many values lie between two edges; those outside are in the first and the last.
        edges: (B + 1), rising.
        space: (C,), sum over images of the variance over an image's positions; None where each has one.
        comoments: (C, C), sums of products of deviations from the mean over all images; None unless asked for.
    """

    images: Counts
    means: Floats
    squares: Floats
    minimum: Floats
    maximum: Floats
    histogram: Counts
    edges: Floats
    space: Floats | None = None
    comoments: Floats | None = None

    @classmethod
    def empty(
        cls, classes: int, channels: int, edges: Floats, *, space: bool = False, comoments: bool = False
    ) -> "Statistics":
        """Those of no image yet."""
        return cls(
            images=np.zeros(classes, np.int64),
            means=np.zeros((classes, channels)),
            squares=np.zeros((classes, channels)),
            minimum=np.full(channels, np.inf),
            maximum=np.full(channels, -np.inf),
            histogram=np.zeros((channels, len(edges) - 1), np.int64),
            edges=edges,
            space=np.zeros(channels) if space else None,
            comoments=np.zeros((channels, channels)) if comoments else None,
        )

    @property
    def channels(self) -> int:
        """C."""
        return int(self.means.shape[1])

    @property
    def total(self) -> int:
        """Images of all classes."""
        return int(self.images.sum())

    @property
    def mean(self) -> Floats:
        """(C,), over all images."""
        mean: Floats = self.images.astype(np.float64) @ self.means / max(1, self.total)
        return mean

    @property
    def between(self) -> Floats:
        """(C,), the part of the sum of squared deviations that lies between the means of classes."""
        between: Floats = self.images.astype(np.float64) @ np.square(self.means - self.mean)
        return between

    @property
    def within(self) -> Floats:
        """(C,), the part that lies within classes."""
        within: Floats = self.squares.sum(0)
        return within

    @property
    def variance(self) -> Floats:
        """(C,), over all images: biased, the mean squared deviation."""
        return (self.between + self.within) / max(1, self.total)

    @property
    def class_deviations(self) -> Floats:
        """(K, C), standard deviation within each class: biased."""
        deviations: Floats = np.sqrt(self.squares / np.maximum(1, self.images)[:, None])
        return deviations

    @property
    def space_variance(self) -> Floats | None:
        """(C,), mean over images of the variance over an image's positions."""
        return None if self.space is None else self.space / max(1, self.total)

    @property
    def correlation(self) -> Floats | None:
        """(C, C), between channels over all images; 0 where one does not vary. None where it was not recorded."""
        if self.comoments is None:
            return None
        deviation = np.sqrt(self.comoments.diagonal())
        scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        correlation: Floats = self.comoments * scale[:, None] * scale
        return correlation

    def add(self, values: Tensor, labels: Tensor) -> None:
        """Take in some images.

        Args:
            values: (N, C), or (N, P, C) for P values of an image at its positions.
            labels: (N,), int64 on the CPU, classes of the images.
        """
        if not len(values):
            return
        values = values.to("cpu", torch.float64)
        self.count(values)
        if values.ndim == 2:
            self.add_images(values, labels)
        else:
            variance, values = torch.var_mean(values, 1, correction=0)
            self.add_images(values, labels, variance)

    def count(self, values: Tensor) -> None:
        """Extremes and histogram of (*, C) values; an edge belongs to the bin above it, but for the last.

        That is half of `add`, for images that come in pieces; `add_images` is the other half.
        """
        values = values.flatten(0, -2)
        if not len(values):
            return
        inner = torch.from_numpy(self.edges[1:-1])
        bins = len(self.edges) - 1
        starts = torch.arange(0, bins * self.channels, bins)
        for some in torch.split(values, max(1, _AT_ONCE // self.channels)):
            some = some.to("cpu", torch.float64)
            low, high = torch.aminmax(some, dim=0)
            np.minimum(self.minimum, low.numpy(), out=self.minimum)
            np.maximum(self.maximum, high.numpy(), out=self.maximum)
            places = torch.bucketize(some, inner, right=True).add_(starts)
            counts = torch.bincount(places.flatten(), minlength=self.histogram.size)
            self.histogram += counts.numpy().reshape(self.histogram.shape)

    def add_images(self, values: Tensor, labels: Tensor, variance: Tensor | None = None) -> None:
        """Means and sums of squares.

        Args:
            values: (N, C), float64 on the CPU; where an image has several positions, its mean over them.
            labels: (N,), int64 on the CPU.
            variance: (N, C), over an image's positions.
        """
        if variance is not None:
            self.space = variance.sum(0).numpy() + (0 if self.space is None else self.space)
        if self.comoments is not None:
            self._add_comoments(values.numpy())
        classes, groups, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        means = torch.zeros(len(classes), self.channels, dtype=torch.float64).index_add_(0, groups, values)
        means /= counts[:, None]
        deviations = (values - means[groups]).square_()
        squares = torch.zeros_like(means).index_add_(0, groups, deviations)
        self._add_groups(classes.numpy(), counts.numpy(), means.numpy(), squares.numpy())

    def merge(self, other: "Statistics") -> None:
        """Take in the images of another: the figures are those of one pass over both.

        Raises:
            ValueError: it is of other classes, channels or bins, or has no comoments where this has them.
        """
        shapes = [(s.means.shape, s.comoments is None, s.edges.tobytes()) for s in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"figures of {shapes[0][0]} and {shapes[1][0]} classes and channels, or of other bins")
        if self.comoments is not None and other.comoments is not None:
            self._merge_comoments(other.total, other.mean, other.comoments)
        self._add_groups(np.arange(len(other.images)), other.images, other.means, other.squares)
        np.minimum(self.minimum, other.minimum, out=self.minimum)
        np.maximum(self.maximum, other.maximum, out=self.maximum)
        self.histogram += other.histogram
        if other.space is not None:
            self.space = other.space + (0 if self.space is None else self.space)

    def copy(self) -> "Statistics":
        """The same, in arrays of its own."""
        return copy.deepcopy(self)

    def _add_groups(self, classes: Counts, counts: Counts, means: Floats, squares: Floats) -> None:
        """Chan's formula, of each class: (G,), (G,), (G, C), (G, C)."""
        before = self.images[classes]
        after = before + counts
        shift = means - self.means[classes]
        share = (counts / np.maximum(1, after))[:, None]
        # Where either has no image, the other's figures to the bit.
        self.means[classes] = np.where((before == 0)[:, None], means, self.means[classes] + shift * share)
        self.squares[classes] += squares + np.square(shift) * before[:, None] * share
        self.images[classes] = after

    def _add_comoments(self, values: Floats) -> None:
        mean: Floats = values.mean(0)
        deviations = values - mean
        self._merge_comoments(len(values), mean, deviations.T @ deviations)

    def _merge_comoments(self, count: int, mean: Floats, comoments: Floats) -> None:
        assert self.comoments is not None
        shift = mean - self.mean
        self.comoments += comoments + np.outer(shift, shift) * (self.total * count / max(1, self.total + count))
