"""What commands share: output, progress, JSON, and common options.

Standard output holds the answer alone; progress, warnings and errors go to standard error. Everything on either goes
through `_Console`, which is the one place where text of others loses what a terminal would obey.
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
    """Shows text of others harmlessly, and names as they are: a folder may be called "runs[a]", a class ":dog:"."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a line or a cell, before it is measured."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is written, of any object; controls are rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def on_broken_pipe(self) -> None:
        """End where nobody reads the answer, as SIGPIPE would; but a run continues if nobody watches."""
        self.quiet = True
        # Python writes what is left in its buffer when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        if not self.stderr:
            raise SystemExit(128 + signal.SIGPIPE)


def _open_closed() -> None:
    """Where a shell has closed standard output or error (`>&-`), Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (until the process ends)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII alone


_open_closed()
# A pipe or a file has no width; 80 columns would fold tables there.
stdout = _Console(width=None if sys.stdout.isatty() else 160)
stderr = _Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option of the network: network.KEY=VALUE. Repeatable."),
]


def note(message: str, style: str | None = None) -> None:
    """Print on standard error, each line in one piece however long it is: a path broken in two cannot be copied."""
    stderr.print(shortened(message), style=style, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON value on standard output; NaN and infinity, for which JSON has no word, become null."""
    value = json.loads(json.dumps(value), parse_constant=lambda constant: None)
    stdout.print(json.dumps(value, indent=2), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], text: int = 1) -> None:
    """Print a table on standard output: the first `text` columns to the left, the others, numbers, to the right.

    A number is never cut. Where the columns do not fit into the terminal, text is folded, then columns continue
    beneath, after the first one again.
    """
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    for line in fitted(title, columns, cells, text, stdout.width):
        stdout.print(line, soft_wrap=True)


def refuse(options: Mapping[str, object], why: str) -> None:
    """Options that would do nothing beside others.

    Args:
        options: values by option, as on the command line; empty, false or None where it was not given.
        why: goes on after the option's name.

    Raises:
        ValueError: one was given.
    """
    given = next((option for option, value in options.items() if value), None)
    if given is not None:
        raise ValueError(f"{given} {why}")


def floats(text: str | None, option: str) -> list[float] | None:
    """Numbers that an option separates by commas.

    Raises:
        ValueError: something in between is no number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"{option} must be numbers with commas between, like 0.485,0.456,0.406; got {text!r}"
        ) from error


def fitting(parts: Iterable[str], width: int) -> str:
    """Join parts of a line, the first first, as long as they fit: none is cut."""
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
    """Counts and time, whole; on a short line the bar is left out, then the time, and what is done is cut."""
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
