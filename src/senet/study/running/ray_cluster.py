"""Runs of a study as tasks of a Ray cluster: Ray places them by CPUs and GPUs, and starts them anew elsewhere.

A task is a process of `senet train`, as on one machine. Where the worker that holds it dies, the process is told to end
and saves, and Ray's next attempt goes on from its checkpoint. The study's folder must be where all nodes see it.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

from senet.runs.folder import RunFolder
from senet.study.running.local import start_process
from senet.utils.extras import install_command
from senet.utils.isolation import package_path
from senet.utils.limits import MOST_PROCESSES, check_at_most

__all__ = ["RayExecutor", "train_task"]

# Attempts after the first, where the worker or its node died.
RETRIES = 5
_POLL = 0.2
# Seconds that a run which was told to end may take for its step and its checkpoint.
_PATIENCE = 600.0


def train_task(command: list[str], log: str, folder: str, cwd: str, threads: int) -> int:
    """What a worker does: the command, and its exit status; asked to cancel, it passes that on and waits.

    Args:
        command: of `senet train`.
        log: file for its output.
        folder: of the run: a process of an attempt before may still be saving there.
        cwd: folder that relative paths of the command are meant from.
        threads: of PyTorch.
    """
    # A cluster that was started in the background of a shell has had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process: subprocess.Popen[bytes] | None = None
    told = False
    since = time.monotonic()
    while True:
        try:
            if process is None and (time.monotonic() - since > _PATIENCE or not RunFolder(Path(folder)).is_busy()):
                environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
                process = start_process(command, Path(log), environment, cwd)
            status = None if process is None else process.poll()
            if status is not None:
                return status
            if told and process is None:
                return 128 + signal.SIGTERM
            time.sleep(_POLL)
        except KeyboardInterrupt:  # by which Ray cancels
            if process is not None and not told:
                process.send_signal(signal.SIGTERM)
            told = True


class RayExecutor:
    """Runs as tasks of a Ray cluster. Close it at the end.

    Args:
        address: "auto" for the cluster that this machine is part of, its address, or "local" for one of this machine
            alone that ends with the study.
        cpus: that a run asks for, and threads that it has.
        gpus: that a run asks for; may be a fraction.
        jobs: with "local", runs at a time; as many as there is room for unless given.

    Raises:
        ValueError: Ray is not installed, no cluster answers, or none of its nodes has so much.
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
            # Ray puts the driver's working directory on the path of every worker: it is to be one without modules.
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
                f"a run asks for {cpus} CPUs and {gpus:g} GPUs, and no node has so much (nodes have {most}); give "
                f"smaller --cpus and --gpus"
            )

    def room(self) -> bool:
        """Always: Ray keeps what it has no room for."""
        return True

    def start(self, command: list[str], log: Path, folder: Path) -> "_Task":
        """See `senet.study.running.run.Executor`."""
        size = log.stat().st_size if log.exists() else 0
        reference = self._task.remote(command, str(log), str(folder), os.getcwd(), self.threads)
        return _Task(self._ray, reference, log, size)

    def close(self) -> None:
        """Let go of the cluster; a local one ends."""
        self._ray.shutdown()


class _Task:
    """A `senet.study.running.run.Job`."""

    def __init__(self, ray: Any, reference: Any, log: Path, size: int) -> None:
        self._ray, self._reference, self._log, self._size = ray, reference, log, size
        self.reason = ""

    def queued(self) -> bool:
        """Whether no worker has begun with it: the first thing that one does is to write into the log."""
        return not self._log.exists() or self._log.stat().st_size <= self._size

    def poll(self) -> int | None:
        """Its exit status; 1 where Ray has none, and a reason."""
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.TaskCancelledError:
            self.reason = "it was cancelled"
        except self._ray.exceptions.RayError as error:
            self.reason = f"Ray gave it up after {RETRIES} more attempts: {str(error).strip().splitlines()[0]}"
        return 1

    def stop(self, number: int) -> None:
        """Cancel it: its worker passes that on, whatever the signal."""
        self._ray.cancel(self._reference, force=False)


def _driver_path() -> list[str]:
    """What workers need on their path to import senet; an installed package is on it already."""
    path = package_path()
    return [] if os.path.basename(path) in ("site-packages", "dist-packages") else [path]


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        ValueError: nothing answers there.
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
    # Before it is imported: no statistics of use, and no lines that a user can do nothing about.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
    except ImportError as error:
        raise ValueError(f"--ray needs Ray: {install_command('study')}") from error
    return ray
