"""What commands share: errors as one line with an exit status, progress, tables, JSON, and common options.

Standard output holds the answer alone; progress, warnings and errors go to standard error.
"""

import functools
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from senet.errors import DataWarning, NonFiniteError, SenetError, TrainingError

__all__ = [
    "JsonOption",
    "SetOption",
    "command",
    "floats",
    "note",
    "print_json",
    "refuse",
    "stderr",
    "stdout",
    "table",
    "track",
]


class _Console(Console):
    """Shows names as they are (a folder may be called "runs[a]", and a class ":dog:"); bears a reader that leaves."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        """End where nobody wants the answer, as SIGPIPE would; but a run goes on if nobody watches."""
        self.quiet = True
        # Python writes what is left in its buffer when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        if not self.stderr:
            raise SystemExit(128 + signal.SIGPIPE)


# A pipe or a file has no width; 80 columns would cut tables up there.
stdout = _Console(width=None if sys.stdout.isatty() else 160)
stderr = _Console(stderr=True)

P = ParamSpec("P")
R = TypeVar("R")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option of the network: network.KEY=VALUE. Repeatable."),
]

_state = {"debug": False}


def show_tracebacks(on: bool) -> None:
    """Whether an error is to show its traceback."""
    _state["debug"] = on


def command(function: Callable[P, R]) -> Callable[P, R]:
    """A command whose errors are one line on standard error and an exit status.

    2 is bad usage or input, before work starts; 1 is a failure during it; 130 is an interrupt from the keyboard.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with _warnings_as_notes():
                return function(*args, **kwargs)
        except KeyboardInterrupt as error:
            _complain("interrupted")
            raise typer.Exit(130) from error
        except (TrainingError, NonFiniteError) as error:
            _complain(str(error))
            raise typer.Exit(1) from error
        except (SenetError, ValueError, TypeError, OSError) as error:
            _complain(str(error))
            raise typer.Exit(2) from error

    return run


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show each warning about data as a line on standard error, once for all processes."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
            if not issubclass(category, DataWarning):
                others(message, category, filename, lineno, *more)
                return
            from senet.training.meeting import is_first

            if is_first():
                note(f"warning: {message}", style="yellow")

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _complain(message: str) -> None:
    if _state["debug"]:
        traceback.print_exc()
    note(f"error: {message}", style="bold red")


def note(message: str, style: str | None = None) -> None:
    """A line on standard error, in one piece however long it is: a path that is broken in two can not be copied."""
    stderr.print(message, style=style, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON value on standard output; NaN and infinity, for which JSON has no word, become null."""
    value = json.loads(json.dumps(value), parse_constant=lambda constant: None)
    stdout.print(json.dumps(value, indent=2), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], text: int = 1) -> None:
    """A table on standard output: the first `text` columns to the left, the others, numbers, to the right."""
    grid = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for index, name in enumerate(columns):
        grid.add_column(name, justify="left" if index < text else "right", overflow="fold", no_wrap=index >= text)
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    for row in cells:
        grid.add_row(*row)
    # Text is folded only where it is long: a short name stays in one piece on a narrow terminal.
    for column, texts in zip(grid.columns[:text], zip(*cells, strict=True), strict=False):
        column.min_width = min(24, max(map(len, texts)))
    stdout.print(grid)


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


def track(steps: Iterable[int], total: int, what: str) -> Iterator[int]:
    """Show progress over steps: a bar on a terminal, otherwise a line every ten seconds."""
    if stderr.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=stderr, transient=True) as progress:
            yield from progress.track(steps, total=total, description=what)
        return
    last = time.monotonic()
    for done, step in enumerate(steps):
        if time.monotonic() - last > 10:
            note(f"{what}: {done} of {total}")
            last = time.monotonic()
        yield step
