"""Plot a confusion matrix as a PNG file."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.utils.figure_style import save_figure, styled

__all__ = ["draw_confusion"]

# Up to so many classes each cell has its count, and each class its name; 150 names are legible at the largest size.
_COUNTED, _NAMED = 20, 150
_LONGEST = 24  # characters of a name


@styled
def draw_confusion(matrix: NDArray[np.int64], classes: Sequence[str], path: str | PathLike[str], title: str) -> None:
    """Plot a confusion matrix: a row for each class, coloured by the percentage of its images with each prediction.

    Cells of 20 classes or fewer have the number of images. Axes of more than 150 classes have numbers.

    Args:
        matrix: (K, K), number of images by class (rows) and prediction (columns).
        classes: (K,), names.
        path: path of the PNG.
        title: title of the figure.

    Raises:
        ValueError: the matrix is not (K, K).
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    count = len(classes)
    if not count or matrix.shape != (count, count):
        raise ValueError(f"expected a matrix ({count}, {count}) for {count} classes, got {matrix.shape}")
    side = float(np.clip(0.45 * count if count <= _COUNTED else 0.15 * count, 4.5, 20))
    figure = Figure(figsize=(side + 1.6, side + 1.2), layout="constrained")
    axes = figure.subplots()
    rows = matrix.sum(1, keepdims=True)
    shares = 100 * matrix / np.maximum(rows, 1)
    # The square root shows rare errors of large matrices.
    norm: Any = "linear"
    if count > _COUNTED:
        from matplotlib.colors import PowerNorm

        norm = PowerNorm(0.5, vmin=0, vmax=100)
    picture = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    if count <= _COUNTED:
        picture.set_clim(0, 100)
        for row, column in np.argwhere(matrix > 0).tolist():
            colour = "white" if shares[row, column] > 55 else "black"
            axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=colour, fontsize=7)
    _name_classes(axes, classes)
    axes.set_xlabel("prediction")
    axes.set_ylabel("class")
    figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, label="images of the class (%)")
    figure.suptitle(title, fontsize=max(12, side), parse_math=False)
    save_figure(figure, path)


def _name_classes(axes: Any, classes: Sequence[str]) -> None:
    """Name rows and columns."""
    count = len(classes)
    if count > _NAMED:
        return
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in classes]
    size = 8 if count <= 40 else 6
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(range(count), names, fontsize=size, rotation=rotation, parse_math=False)
    axes.tick_params(length=2)
