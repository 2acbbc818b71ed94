"""Accumulate statistics of a quantity per channel and class: one pass, float64, mergeable.

This is Welford's recurrence for groups (Chan, Golub and LeVeque 1979): means and sums of squared deviations of two
groups give those of their union. Classes are such groups, so the statistics over all images follow from those by class.
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
# Bins of unbounded quantities have nearly equal width up to _LINEAR and grow in proportion beyond, up to _LARGEST.
_LINEAR = 0.1
_LARGEST = 1000.0
# The number of values that are counted at once.
_CHUNK = 1 << 22


def bounded_edges(low: float, high: float) -> Floats:
    """Return (65,), the edges of 64 equal bins between two bounds in either order."""
    return np.linspace(min(low, high), max(low, high), BINS + 1)


def unbounded_edges(*, negative: bool) -> Floats:
    """Return edges of bins with equal width in asinh(x / 0.1), up to 1,000.

    Args:
        negative: whether to add mirrored bins for values below 0.

    Returns:
        (65,) from 0 on; (129,) with `negative`.
    """
    above: Floats = _LINEAR * np.sinh(np.linspace(0, np.arcsinh(_LARGEST / _LINEAR), BINS + 1))
    return np.concatenate((-above[:0:-1], above)) if negative else above


@dataclass
class Statistics:
    """Statistics of a quantity of C channels, such as the gates of a block, over images of K classes.

    For the squeeze "none" an image has a gate at each position, and with windows one for each window. Then `means`,
    `squares` and what follows from them use an image's mean over them, `space` holds the variance within images, and
    extremes and histogram include all of them.

    Attributes:
        images: (K,), number of images of each class.
        means: (K, C), mean over the images of a class; 0 if it has none.
        squares: (K, C), sums of squared deviations from the means.
        minimum, maximum: (C,).
        histogram: (C, B), number of values in each bin. The first and the last bin include values beyond the edges.
        edges: (B + 1,), ascending.
        space: (C,), sum over images of the variance over positions; None if images have one position.
        comoments: (C, C), sums of products of deviations from the mean over all images; None if not requested.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> statistics = gates.blocks[0].gates
        >>> statistics.total, statistics.means.shape, statistics.variance.shape  # (K, C) and (C,)
        (8, (2, 16), (16,))
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
        """Return the statistics of no images."""
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
        """Return C."""
        return int(self.means.shape[1])

    @property
    def total(self) -> int:
        """Return the number of images of all classes."""
        return int(self.images.sum())

    @property
    def mean(self) -> Floats:
        """Return (C,), the mean over all images."""
        mean: Floats = self.images.astype(np.float64) @ self.means / max(1, self.total)
        return mean

    @property
    def between(self) -> Floats:
        """Return (C,), the sum of squared deviations between the means of classes."""
        between: Floats = self.images.astype(np.float64) @ np.square(self.means - self.mean)
        return between

    @property
    def within(self) -> Floats:
        """Return (C,), the sum of squared deviations within classes."""
        within: Floats = self.squares.sum(0)
        return within

    @property
    def variance(self) -> Floats:
        """Return (C,), the biased variance over all images."""
        return (self.between + self.within) / max(1, self.total)

    @property
    def class_deviations(self) -> Floats:
        """Return (K, C), the biased standard deviation within each class."""
        deviations: Floats = np.sqrt(self.squares / np.maximum(1, self.images)[:, None])
        return deviations

    @property
    def space_variance(self) -> Floats | None:
        """Return (C,), the mean over images of the variance over positions, or None if images have one position."""
        return None if self.space is None else self.space / max(1, self.total)

    @property
    def correlation(self) -> Floats | None:
        """Return (C, C), the correlation of channels, 0 for constant channels; None if it was not recorded."""
        if self.comoments is None:
            return None
        deviation = np.sqrt(self.comoments.diagonal())
        scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        correlation: Floats = self.comoments * scale[:, None] * scale
        return correlation

    def add(self, values: Tensor, labels: Tensor) -> None:
        """Add images.

        Args:
            values: (N, C), or (N, P, C) for values at P positions of an image.
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
        """Add values (*, C) to the extremes and the histogram. Bins include their lower edge, the last one both.

        `add` is `count` and `add_images`. They are separate for images whose positions arrive in several calls.
        """
        values = values.flatten(0, -2)
        if not len(values):
            return
        inner = torch.from_numpy(self.edges[1:-1])
        bins = len(self.edges) - 1
        starts = torch.arange(0, bins * self.channels, bins)
        for some in torch.split(values, max(1, _CHUNK // self.channels)):
            some = some.to("cpu", torch.float64)
            low, high = torch.aminmax(some, dim=0)
            np.minimum(self.minimum, low.numpy(), out=self.minimum)
            np.maximum(self.maximum, high.numpy(), out=self.maximum)
            places = torch.bucketize(some, inner, right=True).add_(starts)
            counts = torch.bincount(places.flatten(), minlength=self.histogram.size)
            self.histogram += counts.numpy().reshape(self.histogram.shape)

    def add_images(self, values: Tensor, labels: Tensor, variance: Tensor | None = None) -> None:
        """Add images to the means and the sums of squares.

        Args:
            values: (N, C), float64 on the CPU; the mean over positions if an image has several.
            labels: (N,), int64 on the CPU.
            variance: (N, C), the variance over positions.
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
        """Merge the statistics of other images.

        Raises:
            ValueError: classes, channels or bins differ, or only one of them has comoments.
        """
        shapes = [(s.means.shape, s.comoments is None, s.edges.tobytes()) for s in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"cannot merge {shapes[0][0]} with {shapes[1][0]} classes and channels, or different bins")
        if self.comoments is not None and other.comoments is not None:
            self._merge_comoments(other.total, other.mean, other.comoments)
        self._add_groups(np.arange(len(other.images)), other.images, other.means, other.squares)
        np.minimum(self.minimum, other.minimum, out=self.minimum)
        np.maximum(self.maximum, other.maximum, out=self.maximum)
        self.histogram += other.histogram
        if other.space is not None:
            self.space = other.space + (0 if self.space is None else self.space)

    def copy(self) -> "Statistics":
        """Return a deep copy."""
        return copy.deepcopy(self)

    def _add_groups(self, classes: Counts, counts: Counts, means: Floats, squares: Floats) -> None:
        """Apply Chan's formula to each class: (G,), (G,), (G, C), (G, C)."""
        before = self.images[classes]
        after = before + counts
        shift = means - self.means[classes]
        share = (counts / np.maximum(1, after))[:, None]
        # If one of them has no images, the other's means are copied exactly.
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
