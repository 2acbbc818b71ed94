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

from senet.utils.figure_style import BLUE, COLOURS, DASHES, GREY, VERMILLION, WIDTH, save_figure, styled, theme
from senet.utils.metric import Panel

__all__ = ["Curve", "draw_comparison", "draw_cost", "draw_curves", "draw_grid", "short"]

_TRAIN, _VALIDATION, _WRONG, _SE = GREY, BLUE, VERMILLION, VERMILLION
_ROW = 100  # characters of a legend row
_COLUMNS, _IMAGE = 5, 2.4  # images in a row, and the largest width of one in inches
# The axis is logarithmic where the median would be in the lowest part of a linear one.
_SQUASHED = 0.05


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


@styled
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
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    numbers = [e["epoch"] for e in epochs]
    lines = ((_TRAIN, "training, augmented", 0.8), (_VALIDATION, "validation", 1.0))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        drawn = []
        for metric, (colour, name, alpha) in zip((panel.training, panel.validation), lines, strict=True):
            if metric is not None:
                values = [e[metric.key] for e in epochs]
                style = {"marker": _marker(len(epochs)), "markersize": 3.5, "alpha": alpha}
                axes.plot(numbers, values, color=colour, label=name, **style)
                drawn.append(np.array([values], dtype=np.float64))
        _style_axes(axes, panel.validation.axis, numbers[0], numbers[-1])
        _set_limits(axes, drawn, from_zero=True)
        _mark_cut(axes)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    first = panels[0].validation
    best = min(epochs, key=lambda e: first.as_cost(e[first.key]))
    _mark_best(figure.axes[0], (best["epoch"], best[first.key]), f"best {first.text(best[first.key])}")
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def _mark_best(axes: Any, point: tuple[float, float], text: str) -> None:
    """Draw a ring around a point, and a text above it, or below where the point is at the top."""
    point = (point[0], max(point[1], axes.get_ylim()[0]))  # zero is below a logarithmic axis
    right, height = axes.transAxes.inverted().transform(axes.transData.transform(point))
    ring = {"s": 64, "facecolors": "none", "edgecolors": _VALIDATION, "linewidths": 1.2}
    axes.scatter(*point, clip_on=False, zorder=4, **ring)
    axes.annotate(
        text,
        point,
        xytext=(0, 16 if height < 0.8 else -22),
        textcoords="offset points",
        ha="left" if right < 0.2 else "right" if right > 0.8 else "center",
        color=theme().ink,
        bbox={"facecolor": theme().page, "edgecolor": "none", "pad": 0.8, "alpha": 0.75},
        arrowprops={"arrowstyle": "-", "color": _VALIDATION, "linewidth": 0.8, "shrinkB": 4},
    )


def _mark_cut(axes: Any) -> None:
    """Write the highest value above the axis, with an arrow, if the axis does not reach it."""
    top = axes.get_ylim()[1]
    highest = max(axes.get_lines(), key=lambda line: max(line.get_ydata()))
    value = float(max(highest.get_ydata()))
    if value > top:
        place = highest.get_xdata()[int(np.argmax(highest.get_ydata()))]
        text = f"\u25b2 {value:,.0f}" if value >= 1000 else f"\u25b2 {value:.3g}"
        style = {"xytext": (0, 1), "textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 8}
        axes.annotate(text, (place, top), color=highest.get_color(), **style)


@styled
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
    figure = Figure(figsize=(WIDTH, 3.0 + 0.2 * rows))
    figure.set_layout_engine("constrained", wspace=0.05)
    longest = max(len(curves[0].mean) for _, curves in arms)
    for place, axes in enumerate(figure.subplots(1, len(panels), squeeze=False).flat):
        curves = [of_arm[place] for _, of_arm in arms]
        for index, curve in enumerate(curves):
            _arm(axes, index, arms[index][0], curve, _marker(longest))
        _style_axes(axes, panels[place].validation.axis, 1, longest)
        _set_limits(axes, [curve.runs for curve in curves])
        _mark_cut(axes)
    # Below the panels, clear of the curves.
    lines, names = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(lines, names, loc="outside lower center", ncols=columns)
    if caption:
        legend.set_title(caption)
        legend.get_title().set_fontsize(8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


@styled
def draw_grid(
    images: Sequence[Image.Image],
    labels: Sequence[tuple[str, bool]],
    path: str | PathLike[str],
    title: str = "",
    columns: int = _COLUMNS,
) -> None:
    """Draw images in a grid, each under its label; wrong ones have a cross and a frame.

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
    width = min(WIDTH / columns, _IMAGE)
    texts = [_wrapped(("\u2717 " if wrong else "") + text, round(16.5 * width)) for text, wrong in labels]
    lines = [max(1 + text.count("\n") for text in texts[row * columns :][:columns]) for row in range(rows)]
    height = (width + 0.12) * rows + 0.13 * sum(lines) + (0.4 if title else 0.1)
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, text, (_, wrong) in zip(grid.flat, images, texts, labels, strict=False):
        axes.imshow(image.convert("RGB"), interpolation="nearest" if min(image.size) < 64 else "bilinear")
        # A class name such as "$5" is not a formula.
        axes.set_title(text, fontsize=8, color=_WRONG if wrong else theme().ink, parse_math=False, pad=3)
        if wrong:
            axes.axis("on")
            axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
            axes.spines[:].set(visible=True, color=_WRONG, linewidth=2.5)
    if title:
        figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def _wrapped(text: str, width: int) -> str:
    """Return a label in lines of at most `width` characters, at most three for each of its own lines."""
    lines = [wrap(line, width, max_lines=3, placeholder=" …") or [""] for line in text.split("\n")]
    return "\n".join(part for parts in lines for part in parts)


@styled
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
    figure = Figure(figsize=(WIDTH, 1.2 + 0.36 * len(stages)), layout="constrained")
    names = [name.strip().replace("\n", ", ") for name, _, _ in stages]
    panels = (("parameters", [params for _, params, _ in stages]), ("multiply-adds", [macs for _, _, macs in stages]))
    for axes, (what, parts) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        _stacked(axes, what, names, parts)
    handles, entries = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, entries, loc="outside lower center", ncols=2)
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def _stacked(axes: Any, what: str, names: Sequence[str], parts: Sequence[tuple[int, int]]) -> None:
    """Draw a bar for each stage, from top to bottom, with SE's part at its end, labelled with its size and share."""
    unit, suffix = max(((u, s) for u, s in ((1, ""), (1e3, "K"), (1e6, "M"), (1e9, "G")) if u <= _most(parts)))
    plain, se = ([part[index] / unit for part in parts] for index in (0, 1))
    rows = range(len(names))
    axes.barh(rows, plain, color=_TRAIN, height=0.68, label="without SE")
    axes.barh(rows, se, left=plain, color=_SE, height=0.68, label="SE")
    for place, (without, with_se) in enumerate(parts):
        if with_se:
            text = f" +{short(with_se)}, {_percent(with_se, without + with_se)}"
            axes.text((without + with_se) / unit, place, text, va="center", color=theme().ink, fontsize=8)
    total = sum(with_se for _, with_se in parts), sum(sum(part) for part in parts)
    axes.set_title(f"{what}: {short(total[1])}, of SE {short(total[0])} ({_percent(*total)})")
    axes.set_xlabel(f"{what} ({suffix})" if suffix else what)
    axes.set_xlim(0, 1.5 * _most(parts) / unit)
    axes.set_yticks(rows, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


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
    colour, dashes = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
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


def _set_limits(axes: Any, arms: Sequence[NDArray[np.float64]], *, from_zero: bool = False) -> None:
    """Set the vertical limits; the axis is logarithmic where most values would lie on the bottom of a linear one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = _limits(arms)
    low = 0 if from_zero else low
    values = np.concatenate([runs.ravel() for runs in arms])
    positive = values[values > 0]
    if low == 0 and len(positive) and np.median(values) < _SQUASHED * high:
        axes.set_yscale("log", nonpositive="clip")
        lowest = max(positive.min(), 1e-4 * high)
        high = min(values.max(), 30 * high)  # there is room for more
        axes.set_ylim(lowest / 1.5, 1.3 * high)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 2000 * lowest else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(low, high)


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
    axes.grid()
