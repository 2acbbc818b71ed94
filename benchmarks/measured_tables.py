"""Read the numbers of the tables that benchmarks wrote into a page, so that pictures show the numbers of the page."""

import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

__all__ = ["Ratio", "headings", "read_ratios"]

_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_RATIO = re.compile(rf"(?P<median>{_NUMBER})(?: \?)?(?: \((?P<low>{_NUMBER}) to (?P<high>{_NUMBER})\))?")
_HEADING = re.compile(r"^### (.*)$", re.MULTILINE)
_TABLE = re.compile(r"^\|.*\|$(?:\n\|.*\|$)+", re.MULTILINE)


class Ratio(NamedTuple):
    """A ratio or difference and the ends of its interval, which equal it where the table has none."""

    median: float
    low: float
    high: float


def headings(page: Path) -> list[str]:
    """Return the headings of level 3 with a table below them."""
    parts = _HEADING.split(page.read_text(encoding="utf-8"))[1:]
    return [heading for heading, text in zip(parts[::2], parts[1::2], strict=True) if _TABLE.search(text)]


def read_ratios(page: Path, heading: str) -> dict[str, dict[str, Ratio]]:
    """Read the first table below a heading of level 3.

    The column "to its twin" has the name of the column before it too: "train, eager, to its twin".

    Args:
        page: a Markdown file.
        heading: text of the heading.

    Returns:
        By row and column; cells that are no numbers are left out.

    Raises:
        ValueError: the page has no such heading with a table.
    """
    parts = _HEADING.split(page.read_text(encoding="utf-8"))[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    table = _TABLE.search(sections.get(heading, ""))
    if table is None:
        raise ValueError(f"{page.name} has no table below '### {heading}'")
    lines = table[0].split("\n")
    header, _, *rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    columns = [f"{before}, {name}" if name == "to its twin" else name for before, name in pairwise(header)]
    ratios: dict[str, dict[str, Ratio]] = {}
    for name, *cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            if match := _RATIO.match(cell):
                median = float(match["median"])
                ratio = Ratio(median, float(match["low"] or median), float(match["high"] or median))
                ratios.setdefault(name, {})[column] = ratio
    return ratios
