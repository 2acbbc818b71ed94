"""Charts of the ratios of a page: a dot for each median, a line for its quartiles, for light and dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from measured_tables import Ratio

from senet.utils.figure_style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    WIDTH,
    figure_theme,
    save_figure,
    styled,
    theme,
)

__all__ = ["Panel", "draw_ratios", "pictures"]

_SERIES = ((VERMILLION, "o"), (BLUE, "s"), (GREY, "D"), (GREEN, "^"), (ORANGE, "v"))
_ROW = 0.19  # inches of a dot


@dataclass(frozen=True)
class Panel:
    """Ratios of one setting.

    Attributes:
        title: the setting.
        rows: for each row its name, and its ratios by series.
    """

    title: str
    rows: Sequence[tuple[str, dict[str, Ratio]]]


def pictures(alt: str, name: str) -> str:
    """Return the Markdown of a picture NAME.png and its dark twin NAME-dark.png."""
    return f"![{alt}]({name}.png#gh-light-mode-only)\n![{alt}]({name}-dark.png#gh-dark-mode-only)"


def draw_ratios(panels: Sequence[Panel], path: Path, label: str, *, at: float = 1) -> None:
    """Draw panels below each other, with a row for each network and a dot for each series.

    Args:
        panels: at least one.
        path: of the light picture; the dark one has the suffix -dark.
        label: of the axis.
        at: the value that stands for no difference.
    """
    for name, suffix in (("light", ""), ("dark", "-dark")):
        with figure_theme(name):  # type: ignore[arg-type]
            _draw(panels, path.with_stem(path.stem + suffix), label, at)


@styled
def _draw(panels: Sequence[Panel], path: Path, label: str, at: float) -> None:
    series = list(dict.fromkeys(name for panel in panels for _, ratios in panel.rows for name in ratios))
    heights = [sum(0.12 + _ROW * max(1, len(ratios)) for _, ratios in panel.rows) for panel in panels]
    figure: Any = Figure(figsize=(WIDTH, 0.8 + sum(heights) + 0.35 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        _panel(axes, panel, series)
        axes.axvline(at, color=theme().ink, linewidth=0.9, zorder=1)
    grid[-1].set_xlabel(label)
    handles = {name: handle for axes in grid for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    shown = [name for name in series if name in handles]
    columns = 3 if max(map(len, shown), default=0) < 24 else 2
    figure.legend([handles[name] for name in shown], shown, loc="outside lower center", ncols=columns)
    save_figure(figure, path)


def _panel(axes: Any, panel: Panel, series: Sequence[str]) -> None:
    y, ticks = 0.0, []
    labelled = set[str]()
    for index, (name, ratios) in enumerate(panel.rows):
        start = y
        for key, ratio in sorted(ratios.items(), key=lambda item: series.index(item[0])):
            colour, marker = _SERIES[series.index(key) % len(_SERIES)]
            errors = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
            text = None if key in labelled else key
            labelled.add(key)
            style = {"fmt": marker, "color": colour, "markersize": 5, "capsize": 2, "elinewidth": 1.3, "zorder": 3}
            axes.errorbar(ratio.median, y, xerr=errors, label=text, **style)
            y += 1
        y += 1 if not ratios else 0
        ticks.append(((start + y - 1) / 2, name))
        if index % 2 == 0:
            axes.axhspan(start - 0.8, y - 0.2, color=theme().band, zorder=0, linewidth=0)
        y += 0.6
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
    axes.set_ylim(y - 0.8, -0.8)
    axes.grid(axis="x")
    axes.set_title(panel.title, loc="left")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
