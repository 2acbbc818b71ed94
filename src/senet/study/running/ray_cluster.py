"""Execute runs of a study as tasks of a Ray cluster: Ray places them by CPUs and GPUs, and restarts them elsewhere.

A task is a process of `senet train`, as on one machine. When its worker dies, the process receives SIGTERM and saves,
and Ray's next attempt resumes from the checkpoint. All nodes must see the study's folder.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from senet.runs.folder import RunFolder
from senet.study.running.local import start_process
from senet.utils.extras import optional_import
from senet.utils.isolation import package_path
from senet.utils.limits import MOST_PROCESSES, check_at_most

__all__ = ["RayExecutor", "train_task"]

# Attempts after the first, when the worker or its node died.
RETRIES = 5
_POLL = 0.2
# Seconds that a stopped run may take to finish its step and write its checkpoint.
_PATIENCE = 600.0


def train_task(command: list[str], log: str, folder: str, cwd: str, threads: int) -> int:
    """Execute a command on a worker. A cancelled task sends SIGTERM to its process, and waits.

    Args:
        command: a command of `senet train`.
        log: file for its output.
        folder: folder of the run, where the process of an earlier attempt may still be saving.
        cwd: working directory, for relative paths in the command.
        threads: number of PyTorch's threads.

    Returns:
        The exit status of the command.
    """
    # Ray cancels a task by SIGINT. An exception in the middle of the start would lose the process.
    cancelled = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: cancelled.set())
    process: subprocess.Popen[bytes] | None = None
    passed_on = False
    since = time.monotonic()
    while True:
        if process is None and cancelled.is_set():
            return 128 + signal.SIGTERM
        if process is None and (time.monotonic() - since > _PATIENCE or not RunFolder(Path(folder)).is_busy()):
            environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
            process = start_process(command, Path(log), environment, cwd)
        status = None if process is None else process.poll()
        if status is not None:
            return status
        if process is not None and cancelled.is_set() and not passed_on:
            process.send_signal(signal.SIGTERM)
            passed_on = True
        time.sleep(_POLL)


class RayExecutor:
    """Executes runs as tasks of a Ray cluster. Call `close` at the end.

    Args:
        address: "auto" for the cluster of this machine, the address of a cluster, or "local" for a cluster of this
            machine alone that ends with the study.
        cpus: CPUs that a run requests, and its number of threads.
        gpus: GPUs that a run requests; may be a fraction.
        jobs: with "local", number of simultaneous runs; limited by the CPUs unless given.

    Raises:
        ValueError: Ray is not installed, no cluster answers, or no node has the CPUs and GPUs.
    """

    def __init__(self, address: str, *, cpus: int = 1, gpus: float = 0.0, jobs: int | None = None) -> None:
        if cpus < 1 or not gpus >= 0:  # NaN is neither
            raise ValueError(f"a run needs 1 CPU or more, and 0 GPUs or more; got {cpus} and {gpus}")
        for name, number in (("cpus", cpus), ("gpus", gpus), ("jobs", jobs)):
            check_at_most(name, number, MOST_PROCESSES)
        self.threads = cpus
        self._ray = _import_ray()
        local = address == "local"
        _check_reachable(address)
        options: dict[str, Any] = {"include_dashboard": False} if local else {}
        if local and jobs is not None:
            options["num_cpus"] = jobs * cpus
        try:
            # Ray adds the driver's working directory to the path of every worker, so use one without modules.
            with warnings.catch_warnings(), contextlib.chdir(os.path.abspath(os.sep)):
                warnings.simplefilter("ignore")
                self._ray.init(
                    address=address,
                    job_config=self._ray.job_config.JobConfig(_py_driver_sys_path=_driver_path()),
                    logging_level=logging.CRITICAL,
                    configure_logging=True,
                    log_to_driver=False,
                    **options,
                )
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"no Ray cluster answers at {address!r} ({str(error).strip().splitlines()[0]}); start one with `ray "
                f"start --head`, or give --ray local"
            ) from error
        self._check_room(cpus, gpus)
        self._task = self._ray.remote(train_task).options(
            max_retries=RETRIES, num_cpus=cpus, num_gpus=gpus, name="senet train"
        )

    def _check_room(self, cpus: int, gpus: float) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            most = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            self.close()
            raise ValueError(
                f"a run requests {cpus} CPUs and {gpus:g} GPUs, and no node has them (nodes have {most}); give smaller "
                f"--cpus and --gpus"
            )

    def has_room(self) -> bool:
        """Return True: Ray queues tasks that do not fit."""
        return True

    def start(self, command: list[str], log: Path, folder: Path) -> "_Task":
        """See `senet.study.running.run.Executor`."""
        size = log.stat().st_size if log.exists() else 0
        reference = self._task.remote(command, str(log), str(folder), os.getcwd(), self.threads)
        return _Task(self._ray, reference, log, size)

    def close(self) -> None:
        """Disconnect from the cluster; a local one ends."""
        self._ray.shutdown()


class _Task:
    """A `senet.study.running.run.Job`."""

    def __init__(self, ray: Any, reference: Any, log: Path, size: int) -> None:
        self._ray, self._reference, self._log, self._size = ray, reference, log, size
        self.reason = ""

    def queued(self) -> bool:
        """Return whether no worker has started the task. A worker first writes to the log."""
        return not self._log.exists() or self._log.stat().st_size <= self._size

    def poll(self) -> int | None:
        """Return the exit status; 1 with a reason where Ray has none; None while the task runs."""
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.TaskCancelledError:
            self.reason = "the task was cancelled"
        except self._ray.exceptions.RayError as error:
            self.reason = f"Ray gave up after {RETRIES} more attempts: {str(error).strip().splitlines()[0]}"
        return 1

    def stop(self, signum: int) -> None:
        """Cancel the task. Its worker sends SIGTERM to the process, for any signal."""
        self._ray.cancel(self._reference, force=False)


def _driver_path() -> list[str]:
    """Return the entries of `sys.path` that workers need to import senet; none if it is installed."""
    path = package_path()
    return [] if os.path.basename(path) in ("site-packages", "dist-packages") else [path]


def _check_reachable(address: str) -> None:
    """Check that something answers at the address of a cluster. Ray itself would try for minutes.

    Raises:
        ValueError: nothing answers.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Ray cluster answers at {address!r} ({error}); `ray status` shows where one is, such as HOST:6379"
        ) from error


def _import_ray() -> Any:
    # Set before the import: no usage statistics, and no log lines that a user cannot act on.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with optional_import("study", "--ray needs Ray"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
    return ray
