"""Fit tables into a terminal without cutting numbers."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.text import Text

from senet.utils.text import printable, shortened

__all__ = ["fitted"]

_GAP = 2  # spaces between columns
# Text is not folded below this width, in characters.
_NARROWEST = 12
# Text is folded at spaces, or after punctuation in a name, but not before a digit: -0.12 and 1,579 stay whole.
_PIECES = re.compile(r"(\s+)|(?<=[/_\-.,:=])(?![\d\s])")


def fitted(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], text: int, width: int) -> Iterator[Text]:
    """Lay out a table for a width: fold text first, then move the columns that do not fit below.

    Args:
        title: title above the table; empty for none.
        columns: column names.
        rows: cells, as text.
        text: number of leading text columns, which may be folded; the others are never broken.
        width: characters of a line.

    Yields:
        Lines. If the table is split into parts, each part repeats the first column, and a line says so.
    """
    cells = [[shortened(printable(cell, one_line=True)) for cell in row] for row in (columns, *rows)]
    needed = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    groups = _groups(needed, text, width)
    if title:
        yield Text(printable(title, one_line=True), style="bold")
    if len(groups) > 1:
        yield Text(f"({len(columns)} columns in {len(groups)} parts: {width} characters hold no more)", style="dim")
    for number, group in enumerate(groups):
        if number:
            yield Text("")
        widths = _widths([needed[index] for index in group], [index < text for index in group], width)
        for row, whole in enumerate(cells):
            parts = [_folded(whole[index], size) for index, size in zip(group, widths, strict=True)]
            for line in _lines(parts, widths, [index < text for index in group]):
                yield Text(line, style="" if row else "bold")


def _groups(needed: list[int], text: int, width: int) -> list[list[int]]:
    """Group column indices into parts: as many as fit, at least one after the first column."""
    groups: list[list[int]] = [[0]]
    for index in range(1, len(needed)):
        together = [*groups[-1], index]
        least = sum(min(needed[i], _NARROWEST) if i < text else needed[i] for i in together)
        if least + _GAP * (len(together) - 1) > width and len(groups[-1]) > 1:
            groups.append([0, index])
        else:
            groups[-1].append(index)
    return groups


def _widths(needed: list[int], is_text: list[bool], width: int) -> list[int]:
    """Return column widths: as needed, with the widest text column narrowed until all fit."""
    widths = list(needed)
    shrinking = [index for index, text in enumerate(is_text) if text]
    for _ in range(sum(widths) + _GAP * (len(widths) - 1) - width):
        longest = max(shrinking, key=widths.__getitem__, default=None)
        if longest is None or widths[longest] <= _NARROWEST:
            break
        widths[longest] -= 1
    return widths


def _folded(text: str, width: int) -> list[str]:
    """Break text into lines of a width; unbreakable pieces may be longer."""
    if cell_len(text) <= width:
        return [text]
    lines = [""]
    for piece in filter(None, _PIECES.split(text)):
        if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.lstrip()
    return lines


def _lines(cells: Sequence[Sequence[str]], widths: Sequence[int], is_text: Iterable[bool]) -> Iterator[str]:
    """Yield the lines of a row: cells padded to the widths, text left-aligned and numbers right-aligned."""
    for parts in zip_longest(*cells, fillvalue=""):
        padded = []
        for part, width, text in zip(parts, widths, is_text, strict=True):
            space = " " * (width - cell_len(part.rstrip()))
            padded.append(part.rstrip() + space if text else space + part)
        yield (" " * _GAP).join(padded).rstrip()
