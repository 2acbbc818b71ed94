"""Console output of commands: tables, progress, JSON, and common options.

Standard output holds the result only; progress, warnings and errors go to standard error. All output goes through
`_Console`, which escapes control characters in text from files.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Column
from rich.text import Text

from senet.cli.common.tables import fitted
from senet.utils.text import printable, shortened

__all__ = [
    "JsonOption",
    "SetOption",
    "fitting",
    "floats",
    "note",
    "print_json",
    "progress",
    "refuse",
    "stderr",
    "stdout",
    "table",
]


class _Console(Console):
    """Escapes control characters, and interprets no markup: a folder may be named "runs[a]", a class ":dog:"."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape the text of a line or cell before it is measured."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escape all written text, except rich's own control codes."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def on_broken_pipe(self) -> None:
        """Exit as with SIGPIPE if standard output is closed; continue if standard error is."""
        self.quiet = True
        # Python flushes its buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        if not self.stderr:
            raise SystemExit(128 + signal.SIGPIPE)


def _open_closed() -> None:
    """Replace standard output or error that a shell has closed (`>&-`), which are None in Python."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (open until the process ends)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # ASCII-only terminals


_open_closed()
# Pipes and files have no width; the default of 80 columns would fold tables.
stdout = _Console(width=None if sys.stdout.isatty() else 160)
stderr = _Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set an option of the network: network.KEY=VALUE. Repeatable."),
]


def note(message: str, style: str | None = None) -> None:
    """Print on standard error without wrapping, so that long paths can be copied."""
    stderr.print(shortened(message), style=style, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a JSON value on standard output; NaN and infinity become null."""
    value = json.loads(json.dumps(value), parse_constant=lambda constant: None)
    stdout.print(json.dumps(value, indent=2), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], text: int = 1) -> None:
    """Print a table on standard output: the first `text` columns left-aligned, numbers right-aligned.

    Numbers are never cut. If the columns do not fit into the terminal, text is folded, then the remaining columns are
    printed below, after the first column again.
    """
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    for line in fitted(title, columns, cells, text, stdout.width):
        stdout.print(line, soft_wrap=True)


def refuse(options: Mapping[str, object], why: str) -> None:
    """Reject options that have no effect in combination with others.

    Args:
        options: values by option name; empty, false or None if not given.
        why: the error message after the option's name.

    Raises:
        ValueError: one of them was given.
    """
    given = next((option for option, value in options.items() if value), None)
    if given is not None:
        raise ValueError(f"{given} {why}")


def floats(text: str | None, option: str) -> list[float] | None:
    """Parse an option's comma-separated numbers.

    Raises:
        ValueError: the text is not a list of numbers.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"invalid {option} {text!r}: expected numbers separated by commas, such as 0.485,0.456,0.406"
        ) from error


def fitting(parts: Iterable[str], width: int) -> str:
    """Join the parts of a line that fit into a width; none is cut."""
    line = ""
    for part in parts:
        if len(line) + len(part) + 2 * bool(line) > width:
            break
        line += "  " * bool(line) + part
    return line


def progress(steps: Iterable[int], total: int, what: str) -> Iterator[int]:
    """Show progress over steps: a bar on a terminal, otherwise a line every ten seconds."""
    if stderr.is_terminal:
        with Progress(*_columns(what, total), console=stderr, transient=True) as bar:
            yield from bar.track(steps, total=total, description=what)
        return
    last = time.monotonic()
    for done, step in enumerate(steps):
        if time.monotonic() - last > 10:
            note(f"{what}: {done} of {total}")
            last = time.monotonic()
        yield step


def _columns(what: str, total: int) -> list[ProgressColumn]:
    """Return the columns of a progress bar; short lines drop the bar, then the time, and cut the description."""
    count, time_left = 2 * len(str(total)) + 2, 9
    room = stderr.width - count
    said = min(len(what) + 1, max(8, room - time_left))
    kept = Column(no_wrap=True, max_width=said, overflow="ellipsis")
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False, table_column=kept)]
    if (bar := room - said - time_left) >= 5:
        columns.append(BarColumn(min(40, bar - 1)))
    columns.append(MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=count - 1)))
    if room - said >= time_left:
        columns.append(TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)))
    return columns
