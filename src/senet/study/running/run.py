"""Run the missing runs of a plan: each is a process of `senet train`, several at a time.

The loop::

    find the runs that are done
    until no run is left:
        start runs that no other process has, as many as fit
        poll the active ones: done, failed (with the tail of the log), stopped, or run by another process
        on a signal: pass it on; the runs save and end
"""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from senet.runs.folder import RunFolder, try_lock
from senet.study.plan.plan import Plan, PlannedRun
from senet.study.running.run_status import is_done, log_tail
from senet.tasks import Task, get_task
from senet.training.signals import StopRequest
from senet.utils.errors import FolderInUseError

__all__ = ["Executor", "Job", "RunState", "RunStatus", "SilentReporter", "StudyReporter", "run_plan"]

# "queued": the executor has not started it yet; "elsewhere": another process runs it.
RunStatus = Literal["waiting", "queued", "running", "elsewhere", "done", "failed", "stopped"]

_POLL = 0.3  # seconds


@dataclass
class RunState:
    """The state of a run.

    Attributes:
        run: the run.
        epochs: number of epochs of the complete run; 0 until it has begun, for a recipe with iterations.
        status: see `RunStatus`.
        epoch: number of completed epochs.
        task: of its recipe.
        value: the task's decisive metric after the last of them.
        since: time of its start here, by `time.monotonic`; 0 if it was not started here.
        seconds: seconds since then.
        reason: why it failed.
    """

    run: PlannedRun
    epochs: int = 0
    status: RunStatus = "waiting"
    epoch: int = 0
    task: Task = field(default_factory=lambda: get_task("classification"))
    value: float | None = None
    since: float = 0.0
    seconds: float = 0.0
    reason: str = ""


class Job(Protocol):
    """A run that an executor has."""

    reason: str  # why the command has no exit status, where it has none

    def queued(self) -> bool:
        """Return whether it has not started yet."""

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""

    def stop(self, signum: int) -> None:
        """Send a signal to it."""


class Executor(Protocol):
    """Executes runs."""

    def has_room(self) -> bool:
        """Return whether another run may be started."""

    def start(self, command: list[str], log: Path, folder: Path) -> Job:
        """Start a command. Its output is appended to the log; the folder is the run's."""


class StudyReporter(Protocol):
    """Receives the progress of a study."""

    def start(self, states: Sequence[RunState]) -> None:
        """All runs, before any is started; some may be done."""

    def update(self, states: Sequence[RunState]) -> None:
        """All runs, after each poll."""

    def ended(self, state: RunState) -> None:
        """A run is done, failed or stopped."""


class SilentReporter:
    """Reports nothing."""

    def start(self, states: Sequence[RunState]) -> None:
        """See `StudyReporter`."""

    def update(self, states: Sequence[RunState]) -> None:
        """See `StudyReporter`."""

    def ended(self, state: RunState) -> None:
        """See `StudyReporter`."""


def run_plan(
    plan: Plan, executor: Executor, reporter: StudyReporter | None = None
) -> tuple[list[RunState], int | None]:
    """Run the missing runs of a saved plan.

    SIGINT and SIGTERM are passed on to the runs, which save and end. A second signal ends this process at once.

    Args:
        plan: the plan.
        executor: where the runs are executed.
        reporter: receives the progress.

    Returns:
        The state of each run, and the signal that ended the study early, or None.
    """
    return _Study(plan, executor, reporter or SilentReporter()).run()


@dataclass
class _ActiveRun:
    state: RunState
    job: Job
    claim: Any  # the lock that keeps other studies from the run


class _Study:
    def __init__(self, plan: Plan, executor: Executor, reporter: StudyReporter) -> None:
        self.plan, self.executor, self.reporter = plan, executor, reporter
        self.states = [RunState(run) for run in plan.runs]
        self.recipes = {run.name: plan.recipe_of(run) for run in plan.runs}
        self.active: list[_ActiveRun] = []

    def run(self) -> tuple[list[RunState], int | None]:
        for state in self.states:
            state.task = get_task(self.recipes[state.run.name].task)
            self._read(state)
            if is_done(self.plan, state.run):
                state.status = "done"
        self.reporter.start(self.states)
        with StopRequest() as stop:
            signalled = False
            try:
                while True:
                    if stop.signal is None:
                        self._start_waiting()
                    elif not signalled:
                        self._stop(stop.signal)
                        signalled = True
                    self._poll(stop.signal is not None)
                    self.reporter.update(self.states)
                    left = any(state.status in ("waiting", "elsewhere") for state in self.states)
                    if not self.active and (stop.signal is not None or not left):
                        break
                    time.sleep(_POLL)
            finally:
                self._stop_and_wait()
        return self.states, stop.signal

    def _read(self, state: RunState) -> None:
        """Read the epochs of a run from its folder."""
        folder = RunFolder(state.run.folder)
        state.epoch, state.value = folder.completed(state.task)
        state.epochs = folder.planned(self.recipes[state.run.name])

    def _start_waiting(self) -> None:
        for state in self.states:
            if state.status in ("waiting", "elsewhere"):
                if not self.executor.has_room():
                    return
                try:
                    self._start(state)
                except OSError as error:  # such as a folder that cannot be written to; other runs may start
                    self._end(state, "failed", str(error))

    def _start(self, state: RunState) -> None:
        run = state.run
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        claim = try_lock(run.folder.with_name(f".{run.folder.name}.lock"))
        if claim is None or RunFolder(run.folder).is_busy():
            if claim is not None:
                claim.release()
            state.status = "elsewhere"
            self._read(state)
            return
        if is_done(self.plan, run):
            claim.release()
            self._read(state)
            self._end(state, "done")
            return
        try:
            run.status_file.unlink(missing_ok=True)
            job = self.executor.start(self.plan.command(run), run.log, run.folder)
        except OSError:
            claim.release()
            raise
        state.since, state.status = time.monotonic(), "queued"
        self.active.append(_ActiveRun(state, job, claim))

    def _poll(self, stopping: bool) -> None:
        for one in list(self.active):
            status = one.job.poll()
            state = one.state
            self._read(state)
            if status is None:
                if state.status == "queued" and not one.job.queued():
                    state.status, state.since = "running", time.monotonic()
                state.seconds = time.monotonic() - state.since
                continue
            self.active.remove(one)
            # Checked before the claim is released, when another study may start the run.
            done = status == 0 and is_done(self.plan, state.run)
            with suppress(OSError):  # without the file, a report reads the log alone
                state.run.status_file.write_text(f"{status}\n", encoding="utf-8")
            one.claim.release()
            output = log_tail(state.run.log)
            if done:
                self._end(state, "done")
            elif stopping and (status in _STOPPED or one.job.reason):
                self._end(state, "stopped")
            elif status == FolderInUseError.exit_status:
                state.status = "elsewhere"
            else:
                self._end(state, "failed", one.job.reason or _failure_reason(status, output))

    def _end(self, state: RunState, status: RunStatus, reason: str = "") -> None:
        state.status, state.reason = status, reason
        self.reporter.ended(state)

    def _stop(self, signum: int) -> None:
        for one in self.active:
            one.job.stop(signum)

    def _stop_and_wait(self) -> None:
        """Stop all active runs, and wait for their end."""
        self._stop(signal.SIGTERM)
        for one in self.active:
            while one.job.poll() is None:
                time.sleep(_POLL)
            one.claim.release()
        self.active.clear()


# Exit statuses of `senet train` after a signal: caught (128 + N), or before its handler was installed (-N).
_STOPPED = {sign * number + base for number in (signal.SIGINT, signal.SIGTERM) for sign, base in ((1, 128), (-1, 0))}


def _failure_reason(status: int, output: str) -> str:
    """Return why a run failed, from its exit status and the tail of its log."""
    if status < 0:
        killed = f"killed by {signal.Signals(-status).name}"
        if -status == signal.SIGKILL:  # a process cannot report it: the tail of its log is about something else
            return f"{killed}; the system may be out of memory"
        return "\n".join(part for part in (killed, output) if part)
    if status == 0:
        return f"ended without completing its epochs\n{output}"
    return output or f"ended with exit status {status} and no output"
