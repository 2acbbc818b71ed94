"""A study as it is seen on a terminal."""

import time
from collections.abc import Sequence
from typing import Any

from rich.live import Live
from rich.table import Table

from senet.cli.common.console import note, stderr

__all__ = ["StudyLive", "duration"]

# Rows of runs in hand that are shown.
_ROWS = 12


class StudyLive:
    """Shows a study: on a terminal a live table of the runs in hand, elsewhere a line an epoch; and how a run ends."""

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
        """How much there is to do."""
        done = sum(state.status == "done" for state in states)
        begun = sum(state.status != "done" and state.epoch > 0 for state in states)
        also = f", {begun} begun" if begun else ""
        note(f"{_count(len(states))}: {done} done{also}", style="bold")
        self._begun = time.monotonic()
        self._epochs_before = sum(state.epoch for state in states)
        self._seen = {state.run.name: (state.status, state.epoch) for state in states}
        if stderr.is_terminal and done < len(states):
            options: Any = {"transient": True, "refresh_per_second": 4, "redirect_stdout": False}
            self._live = Live(self._table(states), console=stderr, **options)
            self._live.start()

    def update(self, states: Sequence[Any]) -> None:
        """The table as it is now, or what is new as lines."""
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
                doing = "is in another command's hand" if elsewhere else "goes on" if state.epoch else "starts"
                note(f"{state.run.name} {doing}{f' after {_epoch(state)}' if state.epoch else ''}")
            else:
                note(f"{state.run.name}: {_epoch(state)}, error {state.error:.2f} %")

    def ended(self, state: Any) -> None:
        """A line; of a run that failed, what it said last and where all is that it said."""
        self._seen[state.run.name] = (state.status, state.epoch)
        error = "" if state.error is None else f", error {state.error:.2f} %"
        if state.status == "failed":
            reason = "\n".join(f"    {line}" for line in state.reason.splitlines())
            note(f"{state.run.name} failed after {_epoch(state)}:\n{reason}\n    log: {state.run.log}", style="red")
        else:
            took = f", {duration(state.seconds)}" if state.since else ""
            style = "green" if state.status == "done" else "yellow"
            note(f"{state.run.name} {state.status}: {_epoch(state)}{error}{took}", style=style)

    def _table(self, states: Sequence[Any]) -> Table:
        count = {status: sum(state.status == status for state in states) for status in _STATUSES}
        told = [f"{number} {status}" for status, number in count.items() if number]
        left = self._left(states)
        caption = f"{len(states)} runs: {', '.join(told)}{f'; about {duration(left)} left' if left else ''}"
        table = Table(title=caption, title_justify="left", title_style="bold", box=None, pad_edge=False)
        # On a short line names give way, and then the bars; numbers stay whole.
        table.add_column("run", overflow="ellipsis", min_width=1)
        for name in ("", "epoch", "error %", "time"):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        bar = max(9, min(20, stderr.width - 45))
        shown = [state for state in states if state.status in ("running", "queued", "elsewhere")]
        shown.sort(key=lambda state: _STATUSES.index(state.status))
        for state in shown[:_ROWS]:
            error = "" if state.error is None else f"{state.error:.2f}"
            took = duration(state.seconds) if state.status == "running" else ""
            what = _bar(state, bar) if state.status == "running" else state.status
            table.add_row(state.run.name, what, f"{state.epoch}/{state.epochs}", error, took)
        return table

    def _left(self, states: Sequence[Any]) -> float:
        """Seconds, by the epochs that were completed since the start; 0 where there were none."""
        made = sum(state.epoch for state in states) - self._epochs_before
        left = sum(state.epochs - state.epoch for state in states if state.status not in ("done", "failed", "stopped"))
        return (time.monotonic() - self._begun) / made * left if made > 0 else 0.0


_STATUSES = ("running", "queued", "elsewhere", "waiting", "done", "failed", "stopped")


def duration(seconds: float) -> str:
    """Such as 45 s, 12 min or 3.5 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def _bar(state: Any, width: int = 20) -> str:
    full: int = width * state.epoch // max(state.epochs, 1)
    return "━" * full + "╌" * (width - full)


def _epoch(state: Any) -> str:
    return f"{state.epoch} of {state.epochs} epochs"


def _count(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"
