"""Show the progress of a study on the terminal."""

import time
from collections.abc import Sequence
from typing import Any

from rich.live import Live
from rich.table import Table

from senet.cli.common.console import note, stderr

__all__ = ["StudyLive", "duration"]

# Rows of active runs that are shown.
_ROWS = 12


class StudyLive:
    """Shows a study: a live table of the active runs on a terminal, else a line per epoch; and the end of each run."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._seen: dict[str, tuple[str, int]] = {}
        self._begun = time.monotonic()
        self._epochs_before = 0

    def __enter__(self) -> "StudyLive":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def start(self, states: Sequence[Any]) -> None:
        """Show the number of runs, and how many are done."""
        done = sum(state.status == "done" for state in states)
        begun = sum(state.status != "done" and state.epoch > 0 for state in states)
        started = f", {begun} started" if begun else ""
        note(f"{_count(len(states))}: {done} done{started}", style="bold")
        self._begun = time.monotonic()
        self._epochs_before = sum(state.epoch for state in states)
        self._seen = {state.run.name: (state.status, state.epoch) for state in states}
        if stderr.is_terminal and done < len(states):
            options: Any = {"transient": True, "refresh_per_second": 4, "redirect_stdout": False}
            self._live = Live(self._table(states), console=stderr, **options)
            self._live.start()

    def update(self, states: Sequence[Any]) -> None:
        """Update the table, or print lines for new epochs and states."""
        if self._live is not None:
            self._live.update(self._table(states))
            return
        for state in states:
            before = self._seen[state.run.name]
            now = self._seen[state.run.name] = (state.status, state.epoch)
            if now == before or state.status not in ("running", "elsewhere"):
                continue
            if state.status != before[0]:
                elsewhere = state.status == "elsewhere"
                doing = "is being run by another process" if elsewhere else "resumes" if state.epoch else "starts"
                note(f"{state.run.name} {doing}{f' after {_epoch(state)}' if state.epoch else ''}")
            else:
                note(f"{state.run.name}: {_epoch(state)}, {_value(state)}")

    def ended(self, state: Any) -> None:
        """Print how a run ended; for a failed one, the end of its log and the log's path."""
        self._seen[state.run.name] = (state.status, state.epoch)
        value = "" if state.value is None else f", {_value(state)}"
        if state.status == "failed":
            reason = "\n".join(f"    {line}" for line in state.reason.splitlines())
            note(f"{state.run.name} failed after {_epoch(state)}:\n{reason}\n    log: {state.run.log}", style="red")
        else:
            took = f", {duration(state.seconds)}" if state.since else ""
            style = "green" if state.status == "done" else "yellow"
            note(f"{state.run.name} {state.status}: {_epoch(state)}{value}{took}", style=style)

    def _table(self, states: Sequence[Any]) -> Table:
        count = {status: sum(state.status == status for state in states) for status in _STATUSES}
        counts = [f"{number} {status}" for status, number in count.items() if number]
        left = self._left(states)
        caption = f"{len(states)} runs: {', '.join(counts)}{f'; about {duration(left)} left' if left else ''}"
        table = Table(title=caption, title_justify="left", title_style="bold", box=None, pad_edge=False)
        # On a narrow terminal names are cut first, then bars; never numbers.
        table.add_column("run", overflow="ellipsis", min_width=1)
        for name in ("", "epoch", states[0].task.decisive.head if states else "", "time"):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        bar = max(9, min(20, stderr.width - 45))
        shown = [state for state in states if state.status in ("running", "queued", "elsewhere")]
        shown.sort(key=lambda state: _STATUSES.index(state.status))
        for state in shown[:_ROWS]:
            value = "" if state.value is None else state.task.decisive.number(state.value)
            took = duration(state.seconds) if state.status == "running" else ""
            what = _bar(state, bar) if state.status == "running" else state.status
            table.add_row(state.run.name, what, f"{state.epoch}/{state.epochs or '?'}", value, took)
        return table

    def _left(self, states: Sequence[Any]) -> float:
        """Return the estimated seconds left, from the epochs completed since the start; 0 if there are none."""
        completed = sum(state.epoch for state in states) - self._epochs_before
        longest = max(state.epochs for state in states)  # of runs that have not begun, the number may be unknown
        active = [state for state in states if state.status not in ("done", "failed", "stopped")]
        left = sum((state.epochs or longest) - state.epoch for state in active)
        return (time.monotonic() - self._begun) / completed * left if completed > 0 else 0.0


_STATUSES = ("running", "queued", "elsewhere", "waiting", "done", "failed", "stopped")


def duration(seconds: float) -> str:
    """Return a duration as text: "45 s", "12 min" or "3.5 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def _bar(state: Any, width: int = 20) -> str:
    full: int = width * state.epoch // max(state.epochs, 1)
    return "━" * full + "╌" * (width - full)


def _epoch(state: Any) -> str:
    return f"{state.epoch} of {state.epochs} epochs" if state.epochs else "no epoch"


def _count(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _value(state: Any) -> str:
    """Return the decisive metric of a run after its last epoch: "error 12.34 %"."""
    decisive = state.task.decisive
    return f"{decisive.noun} {decisive.text(state.value)}"
