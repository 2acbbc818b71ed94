"""Heat maps that can be read: rows and columns in an order in which what is alike stands together, in few cells."""

import numpy as np

from senet.gates.recording.statistics import Counts, Floats
from senet.utils.extras import install_command

__all__ = ["binned", "cluster_order"]

_DIRECTIONS = 32


def cluster_order(values: Floats) -> Counts:
    """An order of rows in which those that are alike are neighbours: Ward's hierarchy, its leaves from left to right.

    Args:
        values: (R, N).

    Returns:
        (R,), places of the rows.

    Raises:
        ValueError: there is no SciPy.
    """
    if len(values) < 3:
        return np.arange(len(values))
    try:
        from scipy.cluster.hierarchy import leaves_list, linkage
    except ImportError as error:
        raise ValueError(f"heat maps of gates need SciPy: {install_command('report')}") from error
    centred = values - values.mean(0)
    if min(centred.shape) > _DIRECTIONS:
        # Distances in the directions of most variance: as good for an order, and far quicker than all of them.
        small = centred.T @ centred if centred.shape[1] <= centred.shape[0] else centred @ centred.T
        weights, vectors = np.linalg.eigh(small)
        kept = vectors[:, -_DIRECTIONS:]
        centred = (
            centred @ kept if len(kept) == centred.shape[1] else kept * np.sqrt(np.maximum(weights[-_DIRECTIONS:], 0))
        )
    order = leaves_list(linkage(centred, "ward"))
    # Which end comes first is arbitrary: the one with the smaller values.
    ends = values[order].mean(1)
    half = max(1, len(order) // 2)
    return np.asarray(order if ends[:half].mean() <= ends[-half:].mean() else order[::-1], np.int64)


def binned(values: Floats, rows: int, columns: int) -> Floats:
    """Means over blocks of neighbouring cells, as equal in size as can be.

    Args:
        values: (R, N).
        rows, columns: how many cells at most.

    Returns:
        (min(R, rows), min(N, columns)); the cell i of n goes from i R // n to (i + 1) R // n.
    """
    for axis, count in ((0, rows), (1, columns)):
        size = values.shape[axis]
        count = min(count, size)
        edges = np.arange(count + 1) * size // count
        values = np.add.reduceat(values, edges[:-1], axis=axis) / np.expand_dims(np.diff(edges), 1 - axis)
    return values
