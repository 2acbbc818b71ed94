"""The plot of a report: errors of single seeds with their means, and differences alongside the paper's."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from senet.study.report.axes import is_cut, limits
from senet.study.report.tables import (
    Effect,
    axis_of_metric,
    better_side,
    difference_to,
    effect,
    heading,
    training_length,
)
from senet.utils.figure_style import BLUE, GREEN, GREY, NARROW, VERMILLION, WIDTH, save_figure, styled, theme
from senet.utils.text import printable

__all__ = ["draw_report"]

_SEED, _MEAN = GREY, BLUE
# Green and vermillion of this palette differ with any colour blindness; what is inconclusive is hollow.
_EFFECTS: dict[Effect, tuple[str, str]] = {
    "better": (GREEN, "better (significant, Holm)"),
    "worse": (VERMILLION, "worse (significant, Holm)"),
    "inconclusive": (BLUE, "inconclusive difference"),
}


@styled
def draw_report(data: Mapping[str, Any], path: str | PathLike[str], *, narrow: bool = False) -> None:
    """Draw the arms from top to bottom: errors on the left, differences to the baseline on the right.

    Args:
        data: see `senet.study.report.report_data.as_data`.
        path: path of the PNG.
        narrow: for screens of about 400 pixels: half as wide, with the differences below the errors.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    arms = data["arms"]
    rows = 0.4 * len(arms)
    figure = Figure(figsize=(NARROW, 3.2 + 2 * rows) if narrow else (WIDTH, 1.6 + rows))
    figure.set_layout_engine("constrained", w_pad=0.08, wspace=0.03)
    errors, differences = figure.subplots(2, 1) if narrow else figure.subplots(1, 2, sharey=True)
    errors.set_xlim(limits(data, "errors"))
    differences.set_xlim(limits(data, "differences"))
    for place, arm in enumerate(arms):
        _errors(errors, place, arm)
        _differences(differences, place, arm, data)
    labels = [_wrapped(arm["label"], 14 if narrow else 26) for arm in arms]
    for axes in (errors, differences):
        axes.set_yticks(range(len(arms)), labels, parse_math=False)
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, pad=9)
    if not narrow:
        differences.tick_params(axis="y", labelleft=False)
    differences.axvline(0, color=theme().muted, linewidth=0.8, zorder=1)
    errors.set_xlabel(axis_of_metric(data))
    direction = f"(points; {better_side(data)} is better)"
    label = f"{_wrapped(difference_to(data), 44)}\n{direction}" if narrow else f"{difference_to(data)} {direction}"
    differences.set_xlabel(label if narrow else _wrapped(label, 44), parse_math=False)
    _legend(figure, data, columns=1 if narrow else 3)
    where = data["data_set"] or data["data"]
    title = f"{heading(data)}, {training_length(data)} of {data['training_images']:,} images of {where}"
    figure.suptitle(_wrapped(title, 44) if narrow else title, parse_math=False, wrap=not narrow)
    save_figure(figure, path)


def _errors(axes: Any, place: int, arm: Mapping[str, Any]) -> None:
    count = len(arm["errors"])
    if not count:
        _write(axes, place, "no run")
        return
    _points(axes, place, arm["errors"])
    if count > 1:
        _mean(axes, place, arm["mean"], arm["half"], _MEAN)


def _differences(axes: Any, place: int, arm: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    found, paper = arm["difference"], arm["paper"]
    if arm["without_baseline"]:
        _write(axes, place, "no baseline")
    if found is not None:
        _points(axes, place, found["values"])
        if found["half"] is not None:
            what = effect(data, found)
            _mean(axes, place, found["mean"], found["half"], _EFFECTS[what][0], hollow=what == "inconclusive")
    if paper is not None and paper["difference"] is not None and arm["baseline"]:
        style: Any = {"color": "none", "markeredgecolor": theme().ink, "markersize": 4.5, "zorder": 4}
        axes.plot([paper["difference"]], [place + 0.24], "D", **style)


def _write(axes: Any, place: int, text: str) -> None:
    """Write text where an arm has no points."""
    box = {"facecolor": theme().page, "edgecolor": "none", "pad": 1.5}  # over the line at zero
    where: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "bbox": box}
    axes.annotate(text, (0.02, place), color=theme().muted, **where)


def _points(axes: Any, place: int, values: list[float]) -> None:
    """Draw the points of single seeds above the mean and its interval."""
    axes.plot(values, [place - 0.17] * len(values), "o", color=_SEED, alpha=0.75, markersize=4, linewidth=0, zorder=2)


def _mean(axes: Any, place: int, mean: float, half: float, color: str, *, hollow: bool = False) -> None:
    style: Any = {"markerfacecolor": theme().blend if hollow else color, "markersize": 5, "capsize": 3}
    axes.errorbar(mean, place, xerr=half, fmt="s", color=color, linewidth=1.4, zorder=3, **style)
    for end, limit, marker in zip((mean - half, mean + half), axes.get_xlim(), "<>", strict=True):
        if (end < limit) == (marker == "<") and end != limit:  # the interval extends beyond the axis
            axes.plot([limit], [place], marker, color=color, markersize=5, clip_on=False, zorder=3)


def _legend(figure: Any, data: Mapping[str, Any], columns: int) -> None:
    """Draw a legend of the marks that the plot has."""
    from matplotlib.lines import Line2D

    arms = data["arms"]
    differences = [arm["difference"] for arm in arms if arm["difference"] and arm["difference"]["half"] is not None]
    found = {effect(data, difference) for difference in differences}
    shown = [("o", _SEED, _SEED, "single seeds")]
    if any(arm["half"] is not None for arm in arms):
        shown.append(("s", _MEAN, _MEAN, "mean, 95 % interval" + " (arrow: cut off)" * is_cut(data)))
    for what, (color, text) in _EFFECTS.items():
        if what in found:
            shown.append(("s", "none" if what == "inconclusive" else color, color, text))
    if any(arm["baseline"] and arm["paper"] and arm["paper"]["difference"] is not None for arm in arms):
        shown.append(("D", "none", theme().ink, "difference in the paper"))
    lines = [
        Line2D([], [], linestyle="none", marker=marker, color=fill, markeredgecolor=edge, markersize=5)
        for marker, fill, edge, _ in shown
    ]
    figure.legend(lines, [name for *_, name in shown], loc="outside lower center", ncols=min(len(shown), columns))


def _wrapped(label: str, width: int) -> str:
    from textwrap import fill

    return fill(printable(label), width)
