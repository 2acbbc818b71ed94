"""The style of all figures: colours, sizes of text, and themes for light and dark pages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from os import PathLike
from typing import Any, Literal, ParamSpec, TypeVar

from senet.utils.files import atomic_path
from senet.utils.text import printable

__all__ = [
    "BLUE",
    "COLOURS",
    "DASHES",
    "GREEN",
    "GREY",
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
]

# The palette of Okabe and Ito (2008), which is distinguishable with any colour blindness. Yellow is left out, because
# lines of it are invisible on white, and black, because lines of it are invisible on dark pages.
BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY, GREY = "#cc79a7", "#56b4e9", "#848b95"
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY)
DASHES = ("-", "--", ":", "-.")

# Figures are 7 inches wide and 1,400 pixels: text of 9 points is legible at 400 pixels too.
WIDTH, _DPI = 7.0, 200

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


def theme() -> Theme:
    """Return the colours of the theme in use."""
    return _THEMES[_THEME.get()]


@contextmanager
def figure_theme(name: ThemeName) -> Iterator[None]:
    """Draw the figures of this block for light or for dark pages; the background of dark ones is transparent."""
    token = _THEME.set(name)
    try:
        yield
    finally:
        _THEME.reset(token)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw in the style of all figures."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import rc_context

        with rc_context(_parameters(theme())):
            return draw(*args, **kwargs)

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


def save_figure(figure: Any, path: str | PathLike[str]) -> None:
    """Write a figure as a PNG, completely or not at all, with control characters escaped."""
    make_printable(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
