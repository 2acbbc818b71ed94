"""Runs of a plan: which are started, how each ends, and what is left when something fails.

Most tests have a stand-in for the processes, which fails, is killed or waits as the test says; the last ones start
real processes.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from senet.recipes.toml import write_recipe
from senet.runs.folder import RunFolder
from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan import Plan, PlannedRun
from senet.study.plan.plan_file import save_plan
from senet.study.running.local import LocalExecutor, cuda_devices, start_process, threads_per_job
from senet.study.running.run import Job, RunState, SilentReporter, run_plan
from senet.study.running.run_status import error_of, is_done
from senet.tasks import get_task
from senet.utils.child import child_command
from senet.utils.errors import FolderInUseError


def planned(folder: Path, *, seeds: int = 2, data: str = "digits", settings: tuple[str, ...] = ()) -> Plan:
    study = open_study("conv3x3", "resnet20").only(["plain", "conv3x3"])
    plan = make_plan(study, data=data, recipe="digits", seeds=seeds, folder=folder / "study", settings=settings)
    return save_plan(plan)


def complete(plan: Plan, run: PlannedRun, epochs: int | None = None) -> None:
    """Write the files of a run of so many epochs, all unless given."""
    run.folder.mkdir(parents=True, exist_ok=True)
    recipe = plan.recipe_of(run)
    write_recipe(recipe, run.folder / "recipe.toml")
    (run.folder / "run.json").write_text(json.dumps({"network": run.arm.network, "epochs": recipe.epochs or 3}))
    lines = [
        {"epoch": n + 1, "top1_error": 50.0 - n, "top5_error": 5.0, "loss": 1.0, "seconds": 1.0}
        for n in range((recipe.epochs or 3) if epochs is None else epochs)
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@dataclass
class FakeJob:
    """Ends with a status after so many polls, or with the status of a signal."""

    status: int
    polls: int = 1
    reason: str = ""
    at_end: Callable[[], None] = lambda: None
    signals: list[int] = field(default_factory=list)

    def queued(self) -> bool:
        return False

    def poll(self) -> int | None:
        self.polls -= 1
        if self.signals:
            return 128 + self.signals[-1]
        if self.polls > 0:
            return None
        self.at_end()
        return self.status

    def stop(self, signum: int) -> None:
        self.signals.append(signum)


class FakeExecutor:
    """Completes each run, unless the test gives another job for its name."""

    def __init__(self, plan: Plan, size: int = 1, **doing: Callable[[PlannedRun], FakeJob]) -> None:
        self.plan, self.size, self.doing = plan, size, doing
        self.jobs: list[FakeJob] = []
        self.started: list[str] = []

    def has_room(self) -> bool:
        return sum(job.polls > 0 for job in self.jobs) < self.size

    def start(self, command: list[str], log: Path, folder: Path) -> FakeJob:
        (run,) = (run for run in self.plan.runs if run.folder == folder)
        assert command == self.plan.command(run)
        self.started.append(run.name)
        make = self.doing.get(run.name.replace(" ", "_"), self.done)
        self.jobs.append(make(run))
        return self.jobs[-1]

    def done(self, run: PlannedRun) -> FakeJob:
        return FakeJob(0, at_end=lambda: complete(self.plan, run))


def failing(text: str, status: int = 1) -> Callable[[PlannedRun], FakeJob]:
    def start(run: PlannedRun) -> FakeJob:
        run.log.write_text("$ the command\n" + text)
        return FakeJob(status)

    return start


class Seen(SilentReporter):
    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []
        self.statuses: list[str] = []

    def start(self, states: Any) -> None:
        self.statuses = [state.status for state in states]

    def ended(self, state: RunState) -> None:
        self.ends.append((state.run.name, state.status))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("senet.study.running.run._POLL", 0.01)


def test_runs_what_is_missing(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    complete(plan, plan.runs[0])
    complete(plan, plan.runs[1], epochs=3)
    seen, executor = Seen(), FakeExecutor(plan)
    states, number = run_plan(plan, executor, seen)
    assert number is None
    assert seen.statuses == ["done", "waiting", "waiting", "waiting"]
    assert executor.started == ["conv3x3 seed 0", "plain seed 1", "conv3x3 seed 1"]
    assert seen.ends == [(name, "done") for name in executor.started]
    assert {(state.status, state.epoch, state.value) for state in states} == {("done", 12, 39.0)}
    again = FakeExecutor(plan)
    run_plan(plan, again)
    assert not again.started


def test_epochs_of_iterations_are_known_once_a_run_has_begun(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds=1, settings=("epochs=0", "iterations=40", "warmup=4"))
    seen: list[tuple[int, ...]] = []

    class Watching(SilentReporter):
        def update(self, states: Any) -> None:
            seen.append(tuple(state.epochs for state in states))

    states, _ = run_plan(plan, FakeExecutor(plan), Watching())
    assert [(state.status, state.epoch) for state in states] == [("done", 3)] * 2
    assert seen == [(3, 0), (3, 3)]


def test_as_many_at_a_time_as_there_is_room_for(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds=3)
    most = 0

    class Counting(FakeExecutor):
        def start(self, *arguments: Any) -> FakeJob:
            nonlocal most
            job = super().start(*arguments)
            job.polls = 4
            most = max(most, sum(job.polls > 0 for job in self.jobs))
            return job

    run_plan(plan, Counting(plan, size=2))
    assert most == 2


def test_a_failure_stops_no_other(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    text = "a\nb\nerror: the loss is nan at step 2\n"
    executor = FakeExecutor(plan, plain_seed_0=failing(text), conv3x3_seed_1=failing("", -9))
    states, _ = run_plan(plan, executor)
    assert [state.status for state in states] == ["failed", "done", "done", "failed"]
    assert states[0].reason == "error: the loss is nan at step 2"
    assert states[3].reason == "killed by SIGKILL; the system may be out of memory"
    states, _ = run_plan(plan, FakeExecutor(plan))
    assert {state.status for state in states} == {"done"}


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("1\n2\n3\n4\n\n5\n6\n", 1, "2\n3\n4\n5\n6"),
        ("", 3, "ended with exit status 3 and no output"),
        ("bye\n", 0, "ended without completing its epochs\nbye"),
        ("interrupted\n", 143, "interrupted"),  # by somebody else
        ("x\n", -11, "killed by SIGSEGV\nx"),
        ("1 0.5 90 %\n2 0.4 80 %\n", -9, "killed by SIGKILL; the system may be out of memory"),
    ],
)
def test_why_a_run_failed(tmp_path: Path, text: str, status: int, reason: str) -> None:
    plan = planned(tmp_path, seeds=1)
    (state, _), _ = run_plan(plan, FakeExecutor(plan, plain_seed_0=failing(text, status)))
    assert (state.status, state.reason) == ("failed", reason)


def test_a_log_of_before_is_no_reason(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds=1)
    run = plan.runs[0]
    run.log.parent.mkdir(parents=True)
    run.log.write_text("$ a\nerror: of yesterday\n")

    def start(run: PlannedRun) -> FakeJob:
        with run.log.open("a") as file:
            file.write("$ b\ntoday\n")
        return FakeJob(1)

    (state, _), _ = run_plan(plan, FakeExecutor(plan, plain_seed_0=start))
    assert state.reason == "today"


def test_a_run_that_cannot_be_started(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds=1)
    plan.runs[0].folder.parent.parent.mkdir(parents=True)
    plan.runs[0].folder.parent.touch()  # a file, where the arm's folder is to be
    states, _ = run_plan(plan, FakeExecutor(plan))
    assert [state.status for state in states] == ["failed", "done"]
    assert "File exists" in states[0].reason


def test_a_run_of_another_process_is_left_to_it(tmp_path: Path) -> None:
    """And done where that gave it up."""
    plan = planned(tmp_path, seeds=1)
    first, second = plan.runs
    claims = [FileLock(run.folder.with_name(".seed-0.lock")) for run in plan.runs]
    for claim, run in zip(claims, plan.runs, strict=True):
        run.folder.parent.mkdir(parents=True)
        claim.acquire()
    statuses: list[tuple[str, ...]] = []

    class Watch(SilentReporter):
        def update(self, states: Any) -> None:
            statuses.append(tuple(state.status for state in states))
            if len(statuses) == 3:
                complete(plan, first)
                claims[0].release()
            if len(statuses) == 6:
                claims[1].release()

    executor = FakeExecutor(plan)
    states, _ = run_plan(plan, executor, Watch())
    assert statuses[:2] == [("elsewhere", "elsewhere")] * 2
    assert executor.started == [second.name]
    assert [state.status for state in states] == ["done", "done"]
    assert states[0].since == 0.0


def test_a_run_without_a_claim_that_is_running(tmp_path: Path) -> None:
    """As after a study was killed, on a system that does not signal its processes."""
    plan = planned(tmp_path, seeds=1)
    run = plan.runs[0]
    run.folder.mkdir(parents=True)
    lock = FileLock(run.folder / ".lock")
    lock.acquire()
    assert RunFolder(run.folder).is_busy()
    assert not RunFolder(plan.runs[1].folder).is_busy()

    class Watch(SilentReporter):
        times = 0

        def update(self, states: Any) -> None:
            self.times += 1
            if self.times == 5:
                lock.release()

    executor = FakeExecutor(plan)
    states, _ = run_plan(plan, executor, Watch())
    assert executor.started == ["conv3x3 seed 0", "plain seed 0"]
    assert not RunFolder(run.folder).is_busy()
    assert [state.status for state in states] == ["done", "done"]


def test_a_folder_that_was_taken_in_between(tmp_path: Path) -> None:
    """Two commands on machines that do not share the claims: `senet train` itself finds out."""
    plan = planned(tmp_path, seeds=1)
    times = 0

    def start(run: PlannedRun) -> FakeJob:
        nonlocal times
        times += 1
        if times == 1:
            return failing("error: another run is writing to it: wait for it\n", FolderInUseError.exit_status)(run)
        return FakeJob(0, at_end=lambda: complete(plan, run))

    states, _ = run_plan(plan, FakeExecutor(plan, plain_seed_0=start))
    assert (states[0].status, times) == ("done", 2)
    assert [run.status_file.read_text() for run in plan.runs] == ["0\n", "0\n"]


def test_a_message_alone_is_no_folder_in_use(tmp_path: Path) -> None:
    """Messages are for people: a run that fails with the same words has failed."""
    plan = planned(tmp_path, seeds=1)
    text = "error: another run is writing to it: wait for it\n"
    states, _ = run_plan(plan, FakeExecutor(plan, plain_seed_0=failing(text, 2)))
    assert (states[0].status, states[0].reason) == ("failed", text.strip())
    assert error_of(plan.runs[0]) == "another run is writing to it: wait for it"


def test_a_status_of_before_is_none_of_a_run_in_progress(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds=1)
    run = plan.runs[0]
    run.folder.parent.mkdir(parents=True)
    run.status_file.write_text(f"{FolderInUseError.exit_status}\n")

    def start(run: PlannedRun) -> FakeJob:
        assert not run.status_file.exists()
        return FakeJob(0, at_end=lambda: complete(plan, run))

    states, _ = run_plan(plan, FakeExecutor(plan, plain_seed_0=start))
    assert states[0].status == "done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on(tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # whatever a shell had ignored
    plan = planned(tmp_path)
    executor = FakeExecutor(plan, size=2, plain_seed_0=lambda run: FakeJob(0, 10**9), conv3x3_seed_0=slow_to_end(plan))

    class Interrupt(Seen):
        def update(self, states: Any) -> None:
            if states[1].status == "running" and not executor.jobs[0].signals:
                os.kill(os.getpid(), number)

    seen = Interrupt()
    states, found = run_plan(plan, executor, seen)
    assert found == number
    assert executor.jobs[0].signals == [number]
    assert executor.started == ["plain seed 0", "conv3x3 seed 0"]  # and no more
    assert [state.status for state in states] == ["stopped", "done", "waiting", "waiting"]


def slow_to_end(plan: Plan) -> Callable[[PlannedRun], FakeJob]:
    """A run that is at its very end when the signal arrives, and completes."""

    class Ending(FakeJob):
        def poll(self) -> int | None:
            if not self.signals:
                return None
            self.at_end()
            return 0

    return lambda run: Ending(0, 10**9, at_end=lambda: complete(plan, run))


def test_no_run_is_left_behind_by_an_error(tmp_path: Path) -> None:
    plan = planned(tmp_path)

    class Broken(SilentReporter):
        def update(self, states: Any) -> None:
            raise RuntimeError("the terminal is gone")

    executor = FakeExecutor(plan, plain_seed_0=lambda run: FakeJob(0, 10**9))
    with pytest.raises(RuntimeError, match="the terminal is gone"):
        run_plan(plan, executor, Broken())
    assert executor.jobs[0].signals == [signal.SIGTERM]
    assert {state.status for state in run_plan(plan, FakeExecutor(plan))[0]} == {"done"}  # no claim is left


def test_what_is_done(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    plain, conv3x3 = plan.runs[:2]
    assert RunFolder(plain.folder).completed(get_task("classification")) == (0, None)
    assert not is_done(plan, plain)
    complete(plan, plain, epochs=11)
    assert RunFolder(plain.folder).completed(get_task("classification")) == (11, 40.0)
    assert not is_done(plan, plain)
    complete(plan, plain)
    assert is_done(plan, plain)
    metrics = plain.folder / "metrics.jsonl"
    whole = metrics.read_text()
    for damaged in (whole[:-20], "x\n" + whole.partition("\n")[2], "null\n", whole.replace("39.0", "NaN")):
        metrics.write_text(damaged)
        assert RunFolder(plain.folder).completed(get_task("classification")) == (0, None)
        assert not is_done(plan, plain)
    complete(plan, plain, epochs=13)
    assert not is_done(plan, plain)
    complete(plan, plain)
    # One that is there by another recipe, or of another network, is not this run.
    complete(plan, conv3x3)
    write_recipe(plan.recipe_of(plain), conv3x3.folder / "recipe.toml")
    assert not is_done(plan, conv3x3)
    (plain.folder / "run.json").write_text(json.dumps({"network": "resnet32"}))
    assert not is_done(plan, plain)
    (plain.folder / "run.json").write_text("{")
    assert not is_done(plan, plain)
    (plain.folder / "metrics.jsonl").write_text("{\n")
    assert RunFolder(plain.folder).completed(get_task("classification")) == (0, None)


def test_what_changes_no_result_leaves_a_run_done(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    complete(plan, plan.runs[0])
    other = planned(tmp_path, settings=("workers=1", "device=cpu", "checkpoint_every=7"))
    assert is_done(other, other.runs[0])


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert [threads_per_job(jobs) for jobs in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert threads_per_job(2) == 3
    with pytest.raises(ValueError, match="jobs must be 1 or more, got 0"):
        LocalExecutor(0)


def test_each_process_has_its_threads_and_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    executor = LocalExecutor(3, ["4", "7"])
    code = "import os; print(*[os.environ[k] for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'CUDA_VISIBLE_DEVICES')])"
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    jobs = [executor.start([sys.executable, "-c", code], log, tmp_path) for log in logs]
    for job in jobs:
        wait_for(partial(has_ended, job))
    assert [log.read_text().splitlines()[1] for log in logs] == ["2 2 4", "2 2 7", "2 2 4"]
    assert executor.has_room()
    assert logs[0].read_text().startswith(f"$ {sys.executable} -c ")


@pytest.mark.parametrize(
    ("count", "visible", "expected"), [(0, "", []), (1, "0", []), (2, "", ["0", "1"]), (2, "5,3", ["5", "3"])]
)
def test_gpus(count: int, visible: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cuda_devices() == expected


def has_ended(job: Job) -> bool:
    return job.poll() is not None


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    since = time.monotonic()
    while not happened():
        assert time.monotonic() - since < seconds
        time.sleep(0.02)


@pytest.fixture
def waiting() -> list[str]:
    """A command that waits, and writes "stopped" on SIGTERM."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: (print('stopped', flush=True), sys.exit(143)))\n"
        "print('here', flush=True)\n"
        "time.sleep(120)\n"
    )
    return [sys.executable, "-c", code]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a process that its parent ended")
def test_a_process_is_stopped_when_its_parent_is_killed(tmp_path: Path, waiting: list[str]) -> None:
    log = tmp_path / "log"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom senet.study.running.local import start_process\n"
        f"start_process({waiting!r}, Path({str(log)!r}), {{}})\ntime.sleep(120)\n"
    )
    parent = start_process([sys.executable, "-c", code], tmp_path / "parent", {})
    wait_for(lambda: log.exists() and log.read_text().endswith("\nhere\n"))
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    wait_for(lambda: log.read_text().endswith("\nhere\nstopped\n"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a process that its parent ended")
def test_a_process_whose_parent_ended_before_it_began(tmp_path: Path) -> None:
    import subprocess

    command = child_command([sys.executable, "-c", "print('ran')"])
    command[4] = "1"  # not this process
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (143, "", "")


def test_a_terminals_interrupt_reaches_a_process_once(tmp_path: Path, waiting: list[str]) -> None:
    """By the study: it is in a session of its own."""
    process = start_process(waiting, tmp_path / "log", {})
    wait_for(lambda: (tmp_path / "log").read_text().endswith("\nhere\n"))
    assert os.getsid(process.pid) != os.getsid(0)
    process.terminate()
    assert process.wait() == 143
