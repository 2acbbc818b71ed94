"""Order rows and columns of heat maps by similarity, and reduce them to fewer cells."""

import numpy as np

from senet.gates.recording.statistics import Counts, Floats
from senet.utils.extras import optional_import

__all__ = ["binned", "cluster_order"]

_DIRECTIONS = 32


def cluster_order(values: Floats) -> Counts:
    """Order rows so that similar rows are neighbours: the leaves of Ward's hierarchical clustering.

    Args:
        values: (R, N).

    Returns:
        (R,), indices of the rows.

    Raises:
        ValueError: SciPy is missing.
    """
    if len(values) < 3:
        return np.arange(len(values))
    with optional_import("report", "heat maps of gates need SciPy"):
        from scipy.cluster.hierarchy import leaves_list, linkage
    centred = values - values.mean(0)
    if min(centred.shape) > _DIRECTIONS:
        # Distances in the directions of largest variance give nearly the same order, much faster.
        small = centred.T @ centred if centred.shape[1] <= centred.shape[0] else centred @ centred.T
        weights, vectors = np.linalg.eigh(small)
        kept = vectors[:, -_DIRECTIONS:]
        centred = (
            centred @ kept if len(kept) == centred.shape[1] else kept * np.sqrt(np.maximum(weights[-_DIRECTIONS:], 0))
        )
    order = leaves_list(linkage(centred, "ward"))
    # The direction is arbitrary; start with the smaller values.
    ends = values[order].mean(1)
    half = max(1, len(order) // 2)
    return np.asarray(order if ends[:half].mean() <= ends[-half:].mean() else order[::-1], np.int64)


def binned(values: Floats, rows: int, columns: int) -> Floats:
    """Average neighbouring cells in blocks of nearly equal size.

    Args:
        values: (R, N).
        rows, columns: maximum number of cells.

    Returns:
        (min(R, rows), min(N, columns)). Row i of n averages rows i R // n to (i + 1) R // n.
    """
    for axis, count in ((0, rows), (1, columns)):
        size = values.shape[axis]
        count = min(count, size)
        edges = np.arange(count + 1) * size // count
        values = np.add.reduceat(values, edges[:-1], axis=axis) / np.expand_dims(np.diff(edges), 1 - axis)
    return values
