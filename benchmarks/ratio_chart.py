"""Charts of the ratios of a page: a dot for each median, a line for its quartiles, for any theme and width of pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from measured_tables import Ratio

from senet.utils.figure_style import (
    BLUE,
    GREEN,
    GREY,
    NARROW,
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
    """Return a picture NAME.png for Markdown, with its twins NAME-dark.png, NAME-narrow.png and NAME-narrow-dark.png.

    GitHub and the site hide the image of the other theme, by the fragment of its address.
    """
    return "\n".join(
        f'''<picture>
  <source media="(max-width: 600px)" srcset="{name}-narrow{suffix}.png">
  <img src="{name}{suffix}.png#gh-{theme}-mode-only"
    alt="{alt}">
</picture>'''
        for theme, suffix in (("light", ""), ("dark", "-dark"))
    )


def draw_ratios(panels: Sequence[Panel], path: Path, label: str, *, at: float = 1) -> None:
    """Draw panels below each other, with a row for each network and a dot for each series.

    Args:
        panels: at least one.
        path: of the light picture; others have the suffixes -narrow, -dark and -narrow-dark.
        label: of the axis.
        at: the value that stands for no difference.
    """
    for name, suffix in (("light", ""), ("dark", "-dark")):
        with figure_theme(name):  # type: ignore[arg-type]
            for width in ("", "-narrow"):
                _draw(panels, path.with_stem(path.stem + width + suffix), label, at, narrow=bool(width))


@styled
def _draw(panels: Sequence[Panel], path: Path, label: str, at: float, *, narrow: bool) -> None:
    series = list(dict.fromkeys(name for panel in panels for _, ratios in panel.rows for name in ratios))
    # Of a row: its dots, on narrow pages its name above them, and space.
    heights = [sum(0.12 + _ROW * (max(1, len(ratios)) + narrow) for _, ratios in panel.rows) for panel in panels]
    legend = _ROW * len(series) if narrow else 0
    size = (NARROW if narrow else WIDTH, 0.8 + legend + sum(heights) + 0.35 * len(panels))
    figure: Any = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        _panel(axes, panel, series, narrow=narrow)
        axes.axvline(at, color=theme().ink, linewidth=0.9, zorder=1)
    grid[-1].set_xlabel(fill(label, 44) if narrow else label)
    handles = {name: handle for axes in grid for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    shown = [name for name in series if name in handles]
    columns = (3 if max(map(len, shown), default=0) < 24 else 2) - narrow
    figure.legend([handles[name] for name in shown], shown, loc="outside lower center", ncols=columns)
    save_figure(figure, path)


def _panel(axes: Any, panel: Panel, series: Sequence[str], *, narrow: bool) -> None:
    y, ticks = 0.0, []
    labelled = set[str]()
    for index, (name, ratios) in enumerate(panel.rows):
        start = y
        if narrow:
            where: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "color": theme().muted}
            outline = withStroke(linewidth=3, foreground=theme().blend if index % 2 else theme().band)
            axes.annotate(name, (0.01, y), fontsize=8.5, path_effects=[outline], **where)
            y += 1
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
    axes.set_yticks([] if narrow else [place for place, _ in ticks], [] if narrow else [name for _, name in ticks])
    axes.set_ylim(y - 0.8, -0.8)
    axes.grid(axis="x")
    axes.locator_params(axis="x", nbins=6 if narrow else 10)
    axes.set_title(fill(panel.title, 50) if narrow else panel.title, loc="left")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
