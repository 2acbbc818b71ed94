"""The style of all figures: colours, sizes of text, and themes for light and dark pages.

With the environment variable `SENET_DARK_FIGURES=FOLDER`, each figure is also written for dark pages, into the folder.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from senet.utils.files import atomic_path
from senet.utils.text import printable

__all__ = [
    "BLUE",
    "COLOURS",
    "DASHES",
    "GREEN",
    "GREY",
    "NARROW",
    "SKY",
    "VERMILLION",
    "WIDTH",
    "Theme",
    "ThemeName",
    "figure_theme",
    "make_printable",
    "save_figure",
    "styled",
    "theme",
    "themed_path",
]

# The palette of Okabe and Ito (2008), which is distinguishable with any colour blindness. Yellow is left out, because
# lines of it are invisible on white, and black, because lines of it are invisible on dark pages.
BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY, GREY = "#cc79a7", "#56b4e9", "#848b95"
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY)
DASHES = ("-", "--", ":", "-.")

# Figures are 7 inches wide and 1,400 pixels.
WIDTH, _DPI = 7.0, 200
# For screens of 400 pixels, the same sizes of text in half the width.
NARROW = 3.6

ThemeName = Literal["light", "dark"]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours that depend on the page.

    Attributes:
        ink: text.
        muted: axes, and text that is read second.
        grid: lines of the grid.
        band: an area that stands out a little from the page.
        box: a shape without emphasis.
        page: background; "none" is transparent.
        blend: colour of the page, for lines around marks.
    """

    ink: str
    muted: str
    grid: str
    band: str
    box: str
    page: str
    blend: str


_LIGHT = Theme(
    ink="#1f2328", muted="#59636e", grid="#dfe3e8", band="#f3f5f8", box="#ccd3dc", page="#ffffff", blend="#ffffff"
)
_DARK = Theme(
    ink="#e6edf3", muted="#a3acb7", grid="#363d47", band="#1b2027", box="#4a535f", page="none", blend="#14171c"
)
_THEMES: dict[ThemeName, Theme] = {"light": _LIGHT, "dark": _DARK}
_THEME: ContextVar[ThemeName] = ContextVar("theme", default="light")
_FOLDER: ContextVar[str | None] = ContextVar("folder", default=None)  # None: that of the figure's path


def theme() -> Theme:
    """Return the colours of the theme in use."""
    return _THEMES[_THEME.get()]


@contextmanager
def figure_theme(name: ThemeName, folder: str | None = None) -> Iterator[None]:
    """Draw the figures of this block for light or for dark pages; the background of dark ones is transparent.

    Args:
        name: the theme.
        folder: where figures are written; None for the folder of their path.
    """
    tokens = _THEME.set(name), _FOLDER.set(folder)
    try:
        yield
    finally:
        _THEME.reset(tokens[0])
        _FOLDER.reset(tokens[1])


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw in the style of all figures; with `SENET_DARK_FIGURES`, a light figure is drawn again for dark pages."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import rc_context

        with rc_context(_parameters(theme())):
            result = draw(*args, **kwargs)
        if _THEME.get() == "light" and (folder := os.environ.get("SENET_DARK_FIGURES")):
            with figure_theme("dark", folder):
                drawn(*args, **kwargs)
        return result

    return drawn


def _parameters(colours: Theme) -> Any:
    """Return Matplotlib's parameters: a dictionary, whose keys are literals in Matplotlib's stubs."""
    texts = dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), colours.ink)
    lines = dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), colours.muted)
    pages = dict.fromkeys(("figure.facecolor", "savefig.facecolor"), colours.page)
    return (
        texts
        | lines
        | pages
        | {
            "axes.facecolor": "none",
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "figure.titlesize": 10,
            "font.size": 9,
            "grid.color": colours.grid,
            "grid.linewidth": 0.7,
            "legend.fontsize": 8.5,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "lines.solid_capstyle": "round",
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
        }
    )


def make_printable(figure: Any) -> None:
    """Escape control characters in all texts of a figure, for which fonts have no glyph."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))


def themed_path(path: str | PathLike[str]) -> Path:
    """Return where a figure of a path is written: in the folder of the theme in use, if it has one."""
    folder = _FOLDER.get()
    return Path(path) if folder is None else Path(folder, Path(path).name)


def save_figure(figure: Any, path: str | PathLike[str]) -> None:
    """Write a figure as a PNG, completely or not at all, with control characters escaped."""
    make_printable(figure)
    with atomic_path(themed_path(path)) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
