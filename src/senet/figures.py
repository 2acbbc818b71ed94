"""Pictures: a run's curves, and images with their predictions. Data in, PNG out; nothing is shown on a screen."""

from collections.abc import Mapping, Sequence
from math import ceil
from os import PathLike
from typing import Any

from PIL import Image

from senet.files import atomic_path

__all__ = ["draw_curves", "draw_grid"]

_TRAIN, _VALIDATION, _WRONG = "#8a8f98", "#1f5fbf", "#c2410c"


def draw_curves(epochs: Sequence[Mapping[str, Any]], path: str | PathLike[str], title: str) -> None:
    """Error and loss of a run by epoch, training and validation.

    Args:
        epochs: with the keys epoch, train_loss, train_error, loss and top1_error, as in `metrics.jsonl`.
        path: of the PNG.
        title: over the picture.

    Raises:
        ValueError: no epochs.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not epochs:
        raise ValueError("there are no epochs to draw curves of; give one or more")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    numbers = [e["epoch"] for e in epochs]
    panels = (("top-1 error (%)", "train_error", "top1_error"), ("cross entropy (nats)", "train_loss", "loss"))
    for axes, (label, train, validation) in zip(figure.subplots(1, 2), panels, strict=True):
        marker = "o" if len(epochs) < 30 else ""
        for key, colour, name in ((train, _TRAIN, "training, augmented"), (validation, _VALIDATION, "validation")):
            axes.plot(numbers, [e[key] for e in epochs], color=colour, marker=marker, markersize=3, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
        highest = max(e[key] for e in epochs for key in (train, validation))
        axes.set_ylim(0, 1.1 * highest or 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    best = min(epochs, key=lambda e: e["top1_error"])
    figure.axes[0].annotate(
        f"best {best['top1_error']:.2f} %",
        (best["epoch"], best["top1_error"]),
        xytext=(0, 18),
        textcoords="offset points",
        ha="center",
        color=_VALIDATION,
        arrowprops={"arrowstyle": "-", "color": _VALIDATION, "linewidth": 0.8},
    )
    figure.suptitle(title, parse_math=False)
    _save(figure, path)


def draw_grid(
    images: Sequence[Image.Image],
    labels: Sequence[tuple[str, bool]],
    path: str | PathLike[str],
    title: str = "",
    columns: int = 8,
) -> None:
    """Images in a grid, each with a label over it.

    Args:
        images: of any size.
        labels: text, and whether it is to stand out as wrong.
        path: of the PNG.
        title: over the picture.
        columns: images in a row.

    Raises:
        ValueError: no images, or another number of labels.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    if not images or len(images) != len(labels):
        raise ValueError(
            f"need 1 image or more and a label for each, got {len(images)} images and {len(labels)} labels"
        )
    columns = min(columns, len(images))
    rows = ceil(len(images) / columns)
    figure = Figure(figsize=(1.35 * columns, 1.6 * rows + (0.4 if title else 0.1)), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, (text, wrong) in zip(grid.flat, images, labels, strict=False):
        axes.imshow(image.convert("RGB"), interpolation="nearest" if min(image.size) < 64 else "bilinear")
        # A class may be called "$5"; that is no formula.
        axes.set_title(text, fontsize=8, color=_WRONG if wrong else "black", parse_math=False)
    if title:
        figure.suptitle(title, parse_math=False)
    _save(figure, path)


def _save(figure: Any, path: str | PathLike[str]) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=144, format="png")
