"""Run what is missing of a plan: each run a process of `senet train`, several at a time.

In short::

    for each run of the plan: is it done?
    until none is left:
        start some: those that nobody else has in hand, as many as there is room for
        see which have ended: done, failed (its last lines are kept), stopped, or in another's hand
        a signal: pass it on; the runs save and end
"""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from senet.runs.folder import RunFolder, try_lock
from senet.study.plan.plan import Plan, PlannedRun
from senet.study.running.run_folder import is_done, last_words
from senet.utils.errors import FolderInUseError

__all__ = ["Executor", "Job", "Quiet", "RunState", "StudyReporter", "run_plan"]

_POLL = 0.3


@dataclass
class RunState:
    """How far a run is.

    Attributes:
        run: which.
        epochs: that it is to have.
        status: "waiting", "queued" (with an executor that has not started it yet), "running", "elsewhere" (another
            command has it in hand), "done", "failed" or "stopped".
        epoch: completed ones.
        error: top-1 error in percent after the last of these.
        since: when it was started here, by `time.monotonic`; 0 where it was not.
        seconds: that it took here.
        reason: of a failure.
    """

    run: PlannedRun
    epochs: int
    status: str = "waiting"
    epoch: int = 0
    error: float | None = None
    since: float = 0.0
    seconds: float = 0.0
    reason: str = ""


class Job(Protocol):
    """A run in hand."""

    reason: str  # why it has no exit status of its own, where it has none

    def queued(self) -> bool:
        """Whether it has not started yet."""

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    def stop(self, number: int) -> None:
        """Pass a signal on to it."""


class Executor(Protocol):
    """Where runs are done."""

    def room(self) -> bool:
        """Whether it takes another one."""

    def start(self, command: list[str], log: Path, folder: Path) -> Job:
        """Start a command whose output goes to a file, and whose run is in a folder."""


class StudyReporter(Protocol):
    """Is told how a study goes."""

    def start(self, states: Sequence[RunState]) -> None:
        """All runs, before any is started; some may be done."""

    def update(self, states: Sequence[RunState]) -> None:
        """A moment later; an epoch may have been added."""

    def ended(self, state: RunState) -> None:
        """A run is done, failed or stopped."""


class Quiet:
    """Says nothing."""

    def start(self, states: Sequence[RunState]) -> None:
        """See `StudyReporter`."""

    def update(self, states: Sequence[RunState]) -> None:
        """See `StudyReporter`."""

    def ended(self, state: RunState) -> None:
        """See `StudyReporter`."""


def run_plan(
    plan: Plan, executor: Executor, reporter: StudyReporter | None = None
) -> tuple[list[RunState], int | None]:
    """Run what is missing of a plan that is saved.

    Args:
        plan: what to run.
        executor: where.
        reporter: is told how it goes.

    Returns:
        How far each run is, and the signal that ended it early, or None. SIGINT and SIGTERM are passed on to the runs,
        which save and end; a second one ends this process at once.
    """
    return _Study(plan, executor, reporter or Quiet()).run()


@dataclass
class _InHand:
    state: RunState
    job: Job
    claim: Any


class _Study:
    def __init__(self, plan: Plan, executor: Executor, reporter: StudyReporter) -> None:
        self.plan, self.executor, self.reporter = plan, executor, reporter
        self.states = [RunState(run, plan.values["epochs"]) for run in plan.runs]
        self.in_hand: list[_InHand] = []

    def run(self) -> tuple[list[RunState], int | None]:
        from senet.training.signals import StopRequest

        for state in self.states:
            state.epochs = self.plan.recipe_of(state.run).epochs
            state.epoch, state.error = RunFolder(state.run.folder).completed()
            if is_done(self.plan, state.run):
                state.status = "done"
        self.reporter.start(self.states)
        with StopRequest() as stop:
            passed_on = False
            try:
                while True:
                    if stop.signal is None:
                        self._start_some()
                    elif not passed_on:
                        self._stop(stop.signal)
                        passed_on = True
                    self._look(stop.signal is not None)
                    self.reporter.update(self.states)
                    left = any(state.status in ("waiting", "elsewhere") for state in self.states)
                    if not self.in_hand and (stop.signal is not None or not left):
                        break
                    time.sleep(_POLL)
            finally:
                self._abandon()
        return self.states, stop.signal

    def _start_some(self) -> None:
        for state in self.states:
            if state.status in ("waiting", "elsewhere"):
                if not self.executor.room():
                    return
                try:
                    self._start(state)
                except OSError as error:  # its folder cannot be written to, say; others' may
                    self._end(state, "failed", str(error))

    def _start(self, state: RunState) -> None:
        run = state.run
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        claim = try_lock(run.folder.with_name(f".{run.folder.name}.lock"))
        if claim is None or RunFolder(run.folder).is_busy():
            if claim is not None:
                claim.release()
            state.status = "elsewhere"
            state.epoch, state.error = RunFolder(run.folder).completed()
            return
        if is_done(self.plan, run):
            claim.release()
            state.epoch, state.error = RunFolder(run.folder).completed()
            self._end(state, "done")
            return
        try:
            run.status_file.unlink(missing_ok=True)
            job = self.executor.start(self.plan.command(run), run.log, run.folder)
        except OSError:
            claim.release()
            raise
        state.since, state.status = time.monotonic(), "queued"
        self.in_hand.append(_InHand(state, job, claim))

    def _look(self, stopping: bool) -> None:
        for one in list(self.in_hand):
            status = one.job.poll()
            state = one.state
            state.epoch, state.error = RunFolder(state.run.folder).completed()
            if status is None:
                if state.status == "queued" and not one.job.queued():
                    state.status, state.since = "running", time.monotonic()
                state.seconds = time.monotonic() - state.since
                continue
            self.in_hand.remove(one)
            # Whether it is done is looked up before anybody else may begin with it.
            done = status == 0 and is_done(self.plan, state.run)
            with suppress(OSError):  # without it, a report goes by the log alone
                state.run.status_file.write_text(f"{status}\n", encoding="utf-8")
            one.claim.release()
            said = last_words(state.run.log)
            if done:
                self._end(state, "done")
            elif stopping and (status in _STOPPED or one.job.reason):
                self._end(state, "stopped")
            elif status == FolderInUseError.exit_status:
                state.status = "elsewhere"
            else:
                self._end(state, "failed", one.job.reason or _why(status, said))

    def _end(self, state: RunState, status: str, reason: str = "") -> None:
        state.status, state.reason = status, reason
        self.reporter.ended(state)

    def _stop(self, number: int) -> None:
        for one in self.in_hand:
            one.job.stop(number)

    def _abandon(self) -> None:
        """Leave no run behind, whatever happened."""
        self._stop(signal.SIGTERM)
        for one in self.in_hand:
            while one.job.poll() is None:
                time.sleep(_POLL)
            one.claim.release()
        self.in_hand.clear()


# How `senet train` ends that was told to, and that had not come so far as to catch the signal.
_STOPPED = {sign * number + base for number in (signal.SIGINT, signal.SIGTERM) for sign, base in ((1, 128), (-1, 0))}


def _why(status: int, said: str) -> str:
    if status < 0:
        killed = f"it was killed by {signal.Signals(-status).name}"
        if -status == signal.SIGKILL:  # of which a process says nothing itself: its last lines are about other things
            return f"{killed}, as a system does that is short of memory"
        return "\n".join(part for part in (killed, said) if part)
    if status == 0:
        return f"it ended without all of its epochs\n{said}"
    return said or f"it ended with exit status {status}, and said nothing"
