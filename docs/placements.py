"""Draw the five placements of SE in a residual unit: docs/placements/NAME.svg, and NAME-dark.svg for dark pages.

python docs/placements.py

Where SE is drawn is where `senet.find_sites` has its site in a bottleneck of ResNet-50.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import senet
from senet.insertion import Site
from senet.utils.choices import Placement
from senet.utils.files import atomic_path

FOLDER = Path(__file__).with_name("placements")
# The unit is the second of a stage: its skip is the identity.
UNIT = "layer1.1"
# Rows of the picture from the top, by what a site of that place is called; None where SE is never placed.
ROWS = (
    (None, "x"),
    ("input", ""),
    (None, "1x1 conv, BN"),
    (None, "ReLU"),
    (None, "3x3 conv, BN"),
    ("bn2", ""),
    (None, "ReLU"),
    (None, "1x1 conv, BN"),
    ("bn3", ""),
    (None, "+"),
    (None, "ReLU"),
    ("output", ""),
)
_SKIP_ROW = 5.0  # of SE on the skip
_SPLIT, _SUM = 0.5, 9.0  # rows in which the skip begins and ends
# Points of a unit: pictures of 160 pixels, so that five fit next to each other, and two on a phone.
_SCALE = 160 / 136 * 72 / 96
# In units: the picture, a row, and the two columns.
_WIDTH, _HEIGHT, _ROW, _TOP = 136, 344, 25, 12
_BRANCH, _SKIP, _BOX, _SE = 50, 114, 84, 30


@dataclass(frozen=True)
class Colours:
    """Colours of a picture; blue and vermillion of Okabe and Ito (2008) differ with any colour blindness."""

    ink: str
    line: str
    box: str
    se: str
    se_text: str


THEMES = {
    "": Colours(ink="#1f2328", line="#59636e", box="#dbe8f3", se="#d55e00", se_text="#ffffff"),
    "-dark": Colours(ink="#e6edf3", line="#a3acb7", box="#16324a", se="#f5904b", se_text="#14171c"),
}


def place_of(site: Site) -> str:
    """Return the row of a site, or "skip"."""
    return site.name.removeprefix(f"{UNIT}.") if site.how == "batch_norm" else site.how


def sites() -> dict[Placement, Site]:
    """Return the site of each placement in the unit."""
    with torch.device("meta"):
        model = senet.create_model("resnet50", stride_in="conv2")
    return {name: next(s for s in senet.find_sites(model, name) if s.unit == UNIT) for name in get_args(Placement)}


def draw(place: str, label: str, colours: Colours, path: Path) -> None:
    """Draw a unit with SE at a place, from the top to the bottom."""
    with rc_context(
        {"svg.hashsalt": "senet", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 10 * _SCALE}
    ):
        figure = Figure(figsize=(_WIDTH * _SCALE / 72, _HEIGHT * _SCALE / 72))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
        axes.set_axis_off()
        picture = _Picture(axes, colours)
        axes.text(
            _BRANCH + 13, 11, label, color=colours.ink, fontsize=10 * _SCALE, weight="bold", ha="center", va="center"
        )
        picture.links(place)
        for row, (site, text) in enumerate(ROWS):
            if site == place:
                picture.box(_BRANCH, row, _SE, "SE", se=True)
            elif text in ("x", "+"):
                picture.circle(row, text)
            elif text:
                picture.box(_BRANCH, row, _BOX, text)
        if place == "skip":
            picture.box(_SKIP, _SKIP_ROW, _SE, "SE", se=True)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


class _Picture:
    def __init__(self, axes: Any, colours: Colours) -> None:
        self._axes, self._colours = axes, colours

    def links(self, place: str) -> None:
        """Draw the branch from the top to the bottom, and the skip around it."""
        end = _y(len(ROWS) - 1) + _ROW * (1.1 if place == "output" else 0.6)
        line = {"color": self._colours.line, "linewidth": 1.2 * _SCALE, "zorder": 0}
        arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **line}
        self._axes.plot([_BRANCH, _BRANCH], [_y(0), end - 8], **line)
        self._axes.annotate("", (_BRANCH, end), (_BRANCH, end - 9), arrowprops=arrow)
        self._axes.plot([_BRANCH, _SKIP, _SKIP], [_y(_SPLIT), _y(_SPLIT), _y(_SUM)], **line, solid_joinstyle="round")
        self._axes.annotate("", (_BRANCH + 9, _y(_SUM)), (_SKIP, _y(_SUM)), arrowprops=arrow)

    def box(self, x: float, row: float, width: float, text: str, *, se: bool = False) -> None:
        """Draw a layer, or SE."""
        colours = self._colours
        patch = FancyBboxPatch(
            (x - width / 2, _y(row) - 8.5),
            width,
            17,
            boxstyle=f"round,pad=0,rounding_size={8 if se else 3}",
            facecolor=colours.se if se else colours.box,
            edgecolor="none",
        )
        self._axes.add_patch(patch)
        style = {"color": colours.se_text, "weight": "bold"} if se else {"color": colours.ink}
        self._axes.text(x, _y(row), text, fontsize=9.5 * _SCALE, ha="center", va="center_baseline", **style)

    def circle(self, row: float, text: str) -> None:
        """Draw the input or the sum."""
        x, colours = _BRANCH, self._colours
        style = {"boxstyle": "circle,pad=0.15", "facecolor": colours.box, "edgecolor": colours.line}
        self._axes.text(
            x, _y(row), text, fontsize=9.5 * _SCALE, ha="center", va="center_baseline", color=colours.ink, bbox=style
        )


def _y(row: float) -> float:
    return _TOP + _ROW * (row + 0.9 + (0.15 if row >= 1 else 0))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, site in sites().items():
        for suffix, colours in THEMES.items():
            draw(place_of(site), name, colours, FOLDER / f"{name}{suffix}.svg")


if __name__ == "__main__":
    main()
