"""Plots as PNG files: training curves, images with predictions, the cost of a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from os import PathLike
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from senet.utils.files import atomic_path
from senet.utils.metric import Panel
from senet.utils.text import printable

__all__ = [
    "ARMS",
    "Curve",
    "draw_comparison",
    "draw_cost",
    "draw_curves",
    "draw_grid",
    "make_printable",
    "save_figure",
    "short",
]

_TRAIN, _VALIDATION, _WRONG = "#8a8f98", "#1f5fbf", "#c2410c"
_PLAIN, _SE = _TRAIN, _VALIDATION

# Ten colours that are distinguishable with any colour blindness (Petroff 2021, arXiv 2107.02270). Made for areas; lines
# are thinner, so the palest come last.
ARMS = ("#3f90da", "#bd1f01", "#ffa90e", "#832db6", "#717581", "#e76300", "#a96b59", "#92dadd", "#b9ac70", "#94a4a2")
_DASHES = ("-", "--", ":")
_ROW = 120  # characters of a legend row


@dataclass(frozen=True)
class Curve:
    """A metric by epoch, over runs with several seeds.

    Attributes:
        mean: (epochs), the mean over runs.
        band: (epochs) twice, the ends of the interval; None if there is none.
        runs: (runs, epochs).
    """

    mean: NDArray[np.float64]
    band: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    runs: NDArray[np.float64]


def draw_curves(
    epochs: Sequence[Mapping[str, Any]], path: str | PathLike[str], title: str, panels: Sequence[Panel]
) -> None:
    """Plot metrics of a run by epoch, of training and of validation data.

    Args:
        epochs: rows with the key epoch and those of the panels' metrics, as in `metrics.jsonl`.
        path: path of the PNG.
        title: title of the figure.
        panels: what to plot, from left to right; the best epoch of the first is marked.

    Raises:
        ValueError: `epochs` is empty.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    if not epochs:
        raise ValueError("no epochs to plot; give at least one")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    numbers = [e["epoch"] for e in epochs]
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        lines = ((panel.training, _TRAIN, "training, augmented"), (panel.validation, _VALIDATION, "validation"))
        drawn = [(metric.key, colour, name) for metric, colour, name in lines if metric is not None]
        for key, colour, name in drawn:
            values = [e[key] for e in epochs]
            axes.plot(numbers, values, color=colour, marker=_marker(len(epochs)), markersize=3, label=name)
        _style_axes(axes, panel.validation.axis, numbers[0], numbers[-1])
        highest = max(e[key] for e in epochs for key, _, _ in drawn)
        axes.set_ylim(0, 1.1 * highest or 1)
        axes.legend(frameon=False)
    first = panels[0].validation
    best = min(epochs, key=lambda e: first.as_cost(e[first.key]))
    figure.axes[0].annotate(
        f"best {first.text(best[first.key])}",
        (best["epoch"], best[first.key]),
        xytext=(0, 18),
        textcoords="offset points",
        ha="center",
        color=_VALIDATION,
        arrowprops={"arrowstyle": "-", "color": _VALIDATION, "linewidth": 0.8},
    )
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def draw_comparison(
    arms: Sequence[tuple[str, Sequence[Curve]]],
    path: str | PathLike[str],
    title: str,
    panels: Sequence[Panel],
    caption: str = "",
) -> None:
    """Plot validation metrics of several arms by epoch: means as lines, intervals as bands, runs as thin lines.

    Args:
        arms: for each its label, and the curve of each panel.
        path: path of the PNG.
        title: title of the figure.
        panels: whose validation metrics are plotted, from left to right.
        caption: title of the legend.

    Raises:
        ValueError: `arms` is empty.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    if not arms:
        raise ValueError("no arms to plot; give at least one")
    columns = min(len(arms), 4, max(1, _ROW // (8 + max(len(arm[0]) for arm in arms))))
    rows = ceil(len(arms) / columns) + bool(caption)
    figure = Figure(figsize=(9, 3.7 + 0.2 * rows))
    figure.set_layout_engine("constrained", wspace=0.05)
    longest = max(len(curves[0].mean) for _, curves in arms)
    for place, axes in enumerate(figure.subplots(1, len(panels), squeeze=False).flat):
        curves = [of_arm[place] for _, of_arm in arms]
        for index, curve in enumerate(curves):
            _arm(axes, index, arms[index][0], curve, _marker(longest))
        _style_axes(axes, panels[place].validation.axis, 1, longest)
        axes.set_ylim(_limits([curve.runs for curve in curves]))
    # Below the panels, clear of the curves.
    lines, names = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(lines, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    if caption:
        legend.set_title(caption)
        legend.get_title().set_fontsize(8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def draw_grid(
    images: Sequence[Image.Image],
    labels: Sequence[tuple[str, bool]],
    path: str | PathLike[str],
    title: str = "",
    columns: int = 8,
) -> None:
    """Draw images in a grid, each under its label.

    Args:
        images: images of any size.
        labels: for each image its text, and whether to highlight it as wrong.
        path: path of the PNG.
        title: title of the figure.
        columns: images in a row.

    Raises:
        ValueError: there are no images, or not one label for each.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    if not images or len(images) != len(labels):
        raise ValueError(
            f"expected at least one image and a label for each, got {len(images)} images and {len(labels)} labels"
        )
    columns = min(columns, len(images))
    rows = ceil(len(images) / columns)
    texts = [_wrapped(text) for text, _ in labels]
    height = 1.47 + 0.13 * max(1 + text.count("\n") for text in texts)
    figure = Figure(figsize=(1.35 * columns, height * rows + (0.4 if title else 0.1)), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, text, (_, wrong) in zip(grid.flat, images, texts, labels, strict=False):
        axes.imshow(image.convert("RGB"), interpolation="nearest" if min(image.size) < 64 else "bilinear")
        # A class name such as "$5" is not a formula.
        axes.set_title(text, fontsize=8, color=_WRONG if wrong else "black", parse_math=False)
    if title:
        figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def _wrapped(text: str) -> str:
    """Return a label in lines as wide as an image, at most three for each of its own lines."""
    lines = [wrap(line, 22, max_lines=3, placeholder=" …") or [""] for line in text.split("\n")]
    return "\n".join(part for parts in lines for part in parts)


def draw_cost(
    stages: Sequence[tuple[str, tuple[int, int], tuple[int, int]]], path: str | PathLike[str], title: str
) -> None:
    """Plot a network's parameters and multiply-adds by stage, with the share of SE on top.

    Args:
        stages: for each its label, parameters (without SE, of SE) and multiply-adds (without SE, of SE).
        path: path of the PNG.
        title: title of the figure.

    Raises:
        ValueError: `stages` is empty.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    if not stages:
        raise ValueError("no stages to plot; give at least one")
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    names = [name for name, _, _ in stages]
    panels = (("parameters", [params for _, params, _ in stages]), ("multiply-adds", [macs for _, _, macs in stages]))
    for axes, (what, parts) in zip(figure.subplots(1, 2), panels, strict=True):
        _stacked(axes, what, names, parts)
    figure.axes[0].legend(frameon=False, loc="upper left")
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def _stacked(axes: Any, what: str, names: Sequence[str], parts: Sequence[tuple[int, int]]) -> None:
    """Draw a bar for each stage with SE's part on top, labelled with its size and share."""
    unit, suffix = max(((u, s) for u, s in ((1, ""), (1e3, "K"), (1e6, "M"), (1e9, "G")) if u <= _most(parts)))
    plain, se = ([part[index] / unit for part in parts] for index in (0, 1))
    axes.bar(names, plain, color=_PLAIN, width=0.7, label="without SE")
    axes.bar(names, se, bottom=plain, color=_SE, width=0.7, label="SE")
    for place, (without, with_se) in enumerate(parts):
        if with_se:
            text = f"+{short(with_se)}\n{_percent(with_se, without + with_se)}"
            axes.text(place, (without + with_se) / unit, text, ha="center", va="bottom", color=_SE, fontsize=8)
    total = sum(with_se for _, with_se in parts), sum(sum(part) for part in parts)
    axes.set_title(f"{what}: {short(total[1])}, of SE {short(total[0])} ({_percent(*total)})", fontsize=10)
    axes.set_ylabel(f"{what} ({suffix})" if suffix else what)
    axes.set_ylim(0, 1.2 * _most(parts) / unit)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _most(parts: Sequence[tuple[int, int]]) -> int:
    return max(1, *map(sum, parts))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.2g} %"


def short(count: float) -> str:
    """Format a number with three digits and a unit: 2.53 M."""
    for unit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if count >= unit:
            return f"{count / unit:.3g}{suffix}"
    return f"{count:.3g}"


def _arm(axes: Any, index: int, label: str, curve: Curve, marker: str) -> None:
    colour, dashes = ARMS[index % len(ARMS)], _DASHES[index // len(ARMS) % len(_DASHES)]
    epochs = np.arange(1, len(curve.mean) + 1)
    if curve.band is not None:
        axes.fill_between(epochs, *curve.band, color=colour, alpha=0.16, linewidth=0, zorder=1)
    if len(curve.runs) > 1:
        for run in curve.runs:
            axes.plot(epochs, run, color=colour, linewidth=0.6, alpha=0.5, zorder=2)
    style = {
        "color": colour,
        "linestyle": dashes,
        "linewidth": 1.8 if marker else 1.3,
        "marker": marker,
        "markersize": 3,
    }
    axes.plot(epochs, curve.mean, label=label, zorder=3, **style)


def _limits(arms: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return the vertical limits, which may cut off a few outlying epochs, such as a diverged first one."""
    lowest, highest = min(runs.min() for runs in arms), max(runs.max() for runs in arms)
    most = max(np.quantile(run, 0.85, method="lower") for runs in arms for run in runs)
    # In a short run the first epochs are a large part, and are cut off only if far out of range.
    factor = 4 if max(runs.shape[1] for runs in arms) >= 10 else 10
    if highest - lowest > factor * (most - lowest) > 0:
        highest = lowest + 2 * (most - lowest)
    margin = 0.06 * (highest - lowest) or 0.1 * highest or 1.0
    return (0.0 if lowest <= 0.2 * highest else float(max(0, lowest - margin))), float(highest + margin)


def _marker(epochs: int) -> str:
    """Return a marker for each epoch, or none where markers would overlap."""
    return "o" if epochs < 30 else ""


def _style_axes(axes: Any, label: str, first: int, last: int) -> None:
    """Style a panel over epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def make_printable(figure: Any) -> None:
    """Escape control characters in all texts of a figure, for which fonts have no glyph."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))


def save_figure(figure: Any, path: str | PathLike[str]) -> None:
    """Write a figure as a PNG, completely or not at all, with control characters escaped."""
    make_printable(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=144, format="png")
