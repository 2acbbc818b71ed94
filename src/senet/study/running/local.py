"""Execute runs of a study as processes of this machine."""

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from senet.utils.child import child_command
from senet.utils.isolation import clean_environment
from senet.utils.limits import MOST_PROCESSES, check_at_most

__all__ = ["LocalExecutor", "cuda_devices", "start_process", "threads_per_job"]


def threads_per_job(jobs: int) -> int:
    """Return this machine's cores, or OMP_NUM_THREADS, divided by the number of simultaneous processes."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, (int(asked) if asked.isdigit() else cores) // jobs)


def _open_log(log: Path, command: list[str]) -> IO[bytes]:
    """Open a log to append the output of a command, and write the command there."""
    file = log.open("ab")
    file.write(f"$ {shlex.join(command)}\n".encode())
    file.flush()
    return file


def start_process(
    command: list[str], log: Path, environment: Mapping[str, str], cwd: str | None = None
) -> "subprocess.Popen[bytes]":
    """Start a command that ends when this process ends. A terminal's Ctrl-C does not reach it directly."""
    with _open_log(log, command) as file:
        return subprocess.Popen(
            child_command(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=clean_environment(os.environ | environment),
            cwd=cwd,
            start_new_session=True,
        )


class LocalExecutor:
    """Executes several processes at a time. They share the cores, and each has one GPU.

    Args:
        jobs: number of simultaneous processes.
        devices: values of CUDA_VISIBLE_DEVICES, one for each process in turn; empty leaves the device to the recipe.

    Raises:
        ValueError: fewer than one job, or too many.
    """

    def __init__(self, jobs: int = 1, devices: list[str] | None = None) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be 1 or more, got {jobs}")
        check_at_most("jobs", jobs, MOST_PROCESSES)
        self.threads = threads_per_job(jobs)
        self._devices = devices or []
        self._slots: list[_Process | None] = [None] * jobs

    def has_room(self) -> bool:
        """See `senet.study.running.run.Executor`."""
        return any(process is None or process.poll() is not None for process in self._slots)

    def start(self, command: list[str], log: Path, folder: Path) -> "_Process":
        """See `senet.study.running.run.Executor`."""
        free = next(i for i, process in enumerate(self._slots) if process is None or process.poll() is not None)
        environment = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[free % len(self._devices)]
        process = _Process(start_process(command, log, environment))
        self._slots[free] = process
        return process


class _Process:
    """A `senet.study.running.run.Job`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process, self.reason = process, ""

    def queued(self) -> bool:
        """Return False: a process starts at once."""
        return False

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""
        return self._process.poll()

    def stop(self, signum: int) -> None:
        """Send a signal to the process."""
        self._process.send_signal(signum)


def cuda_devices() -> list[str]:
    """Return a value of CUDA_VISIBLE_DEVICES for each GPU; empty with fewer than two GPUs."""
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        return []
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] or [str(number) for number in range(count)]
