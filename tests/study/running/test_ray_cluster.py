"""Runs as tasks of Ray: without Ray, what a worker does; with it, a cluster of two workers of this machine."""

import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan import Plan
from senet.study.plan.plan_file import save_plan
from senet.study.running import ray_cluster as ray_running
from senet.study.running.local import start_process
from senet.study.running.ray_cluster import RayExecutor, train_task
from senet.study.running.run import SilentReporter, run_plan
from tests.images import write_classes

PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *a: (print("stopped", flush=True), sys.exit(143)))
print("here", flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(7)
"""


def task(folder: Path, seconds: float) -> int:
    command = [sys.executable, "-c", PROGRAM, str(seconds)]
    return train_task(command, str(folder / "log"), str(folder / "run"), str(folder), 1)


def interrupt_when(said: str, log: Path) -> None:
    """As Ray cancels a task: an interrupt of the main thread."""

    def wait() -> None:
        while not (log.exists() and log.read_text().endswith(said)):
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


@pytest.fixture(autouse=True)
def _restore() -> Any:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_task_ends_as_its_command_does(tmp_path: Path) -> None:
    assert task(tmp_path, 0.0) == 7
    assert (tmp_path / "log").read_text().endswith("\nhere\n")


def test_a_cancelled_task_stops_its_command(tmp_path: Path) -> None:
    interrupt_when("\nhere\n", tmp_path / "log")
    assert task(tmp_path, 120.0) == 143
    assert (tmp_path / "log").read_text().endswith("\nhere\nstopped\n")


def test_a_task_cancelled_while_its_command_starts_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def interrupted(*args: Any) -> Any:
        started.append(start_process(*args))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(ray_running, "start_process", interrupted)
    assert task(tmp_path, 120.0) in (143, -signal.SIGTERM)  # before Python has its handler
    assert started[0].poll() is not None


def test_a_task_waits_for_the_attempt_before(tmp_path: Path) -> None:
    """Whose process is saving."""
    (tmp_path / "run").mkdir()
    lock = FileLock(tmp_path / "run" / ".lock", thread_local=False)
    lock.acquire()
    threading.Timer(1.0, lock.release).start()
    since = time.monotonic()
    assert task(tmp_path, 0.0) == 7
    assert time.monotonic() - since > 1.0


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"--ray needs Ray \(.+\): pip install -e '.*\[study\]'"):
        RayExecutor("local")


@pytest.mark.parametrize(("cpus", "gpus"), [(0, 0.0), (1, -1.0), (1, float("nan"))])
def test_refuses(cpus: int, gpus: float) -> None:
    with pytest.raises(ValueError, match=f"1 CPU or more, and 0 GPUs or more; got {cpus} and {gpus}"):
        RayExecutor("local", cpus=cpus, gpus=gpus)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:first"])
def test_an_address_where_nothing_answers(address: str) -> None:
    pytest.importorskip("ray")
    since = time.monotonic()
    with pytest.raises(ValueError, match=f"no Ray cluster answers at '{address}'"):
        RayExecutor(address)
    assert time.monotonic() - since < 15  # Ray itself tries for minutes


def planned(folder: Path, epochs: int) -> Plan:
    if not (folder / "data").exists():
        write_classes(folder / "data" / "train", {"cat": 6, "dog": 6})
        write_classes(folder / "data" / "val", {"cat": 3, "dog": 1})
    study = open_study("conv3x3", "resnet20")
    settings = (f"epochs={epochs}", "warmup=1", "batch=4", "lr=0.01", "device=cpu", "workers=0")
    plan = make_plan(
        study, data=str(folder / "data"), recipe="digits", seeds=1, folder=folder / "study", settings=settings
    )
    return save_plan(plan)


def metrics(plan: Plan) -> list[list[dict[str, Any]]]:
    """Of each run, but for what is measured of time."""
    found = []
    for run in plan.runs:
        lines = (run.folder / "metrics.jsonl").read_text().splitlines()
        found.append([{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines])
    return found


def process_of(run: Any) -> psutil.Process | None:
    """That of a run's `senet train`."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if str(run.folder) in command and "senet" in command:
            return process
    return None


class KillWorker(SilentReporter):
    """Kills the worker that holds the first run, by its number, once that has an epoch behind it."""

    def __init__(self) -> None:
        self.killed: list[str] = []

    def update(self, states: Any) -> None:
        if not self.killed and states[0].epoch:
            process = process_of(states[0].run)
            if process is not None and (worker := process.parent()) is not None:
                self.killed.append(worker.name())
                os.kill(worker.pid, signal.SIGKILL)


class Interrupt(SilentReporter):
    """Ctrl-C, once the first run has an epoch behind it."""

    interrupted = False

    def update(self, states: Any) -> None:
        if states[0].epoch and not self.interrupted:
            self.interrupted = True
            os.kill(os.getpid(), signal.SIGTERM)  # a second one would end this process at once


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two workers; and a study that is interrupted resumes."""
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plan = planned(tmp_path, epochs=25)
    executor = RayExecutor("local", jobs=2)
    try:
        killer = KillWorker()
        states, number = run_plan(plan, executor, killer)
        assert len(killer.killed) == 1
        assert killer.killed[0].startswith("ray::")
        assert [(state.status, state.epoch) for state in states] == [("done", 25)] * 3
        assert number is None
        assert (
            states[0].run.log.read_text().count("senet train resnet20") == 2
        )  # two attempts, of which the second resumed
        assert re.search("(goes on|resuming) after", states[0].run.log.read_text())
        straight = planned(tmp_path / "straight", epochs=25)
        states, number = run_plan(straight, executor, Interrupt())
        assert number == signal.SIGTERM
        assert {state.status for state in states} <= {"stopped", "waiting", "done"}
        assert states[0].status == "stopped"
        assert process_of(states[0].run) is None
        states, number = run_plan(straight, executor)
        assert [(state.status, state.epoch) for state in states] == [("done", 25)] * 3
    finally:
        executor.close()
    # Bit for bit, wherever they were stopped.
    assert metrics(plan) == metrics(straight)
    with pytest.raises(ValueError, match="a run requests 1 CPUs and 64 GPUs, and no node has them"):
        RayExecutor("local", gpus=64, jobs=1)
    assert not ray_running._import_ray().is_initialized()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers_import_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    for name in ("numpy", "matplotlib", "filelock"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(tmp_path)
    executor = ray_running.RayExecutor("local", cpus=1, jobs=1)
    try:
        job = executor.start([sys.executable, "-c", "print('done')"], tmp_path / "log", tmp_path / "run")
        deadline = time.monotonic() + 120
        while job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert job.poll() == 0, job.reason
    finally:
        executor.close()
    assert not (tmp_path / "mark").exists()
    assert "done" in (tmp_path / "log").read_text()
    assert Path.cwd() == tmp_path
