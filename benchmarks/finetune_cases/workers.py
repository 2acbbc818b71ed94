"""Runs by priority until the time is over: in this process, or in several."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty
from typing import Any

import torch

import senet
from finetune_cases.arms import Job
from finetune_cases.lanes import make_lanes
from finetune_cases.session import Session, Settings
from senet.utils.errors import first_line
from senet.utils.modes import tf32_products

__all__ = ["Clock", "measure", "run_all"]

# Seconds for which a process waits when the queues of all lanes are full, and for a result.
_PAUSE, _POLL = 0.0005, 0.5


class Clock:
    """The end of the study, and an estimate of whether a run ends before it.

    Args:
        end: `time.time()` after which nothing starts, and nothing is waited for.
    """

    def __init__(self, end: float) -> None:
        self.end = end
        self._pace: dict[str, float] = {}  # seconds per image by network

    def add(self, result: dict[str, Any]) -> None:
        """Learn the speed from the results of a run."""
        pace = result["seconds"] / (result["images"] * result["epochs"])
        known = self._pace.get(result["network"], pace)
        self._pace[result["network"]] = 0.5 * (known + pace)

    def fits(self, job: Job) -> bool:
        """Return whether a run would end in time, as far as is known."""
        return time.time() + self._pace.get(job.network, 0.0) * job.images * job.epochs < self.end


def measure(
    settings: Settings, steps: int, lanes: int, claim: Callable[[Callable[[Job], bool]], Job | None], end: float
) -> Iterator[dict[str, Any]]:
    """Yield the results of runs as they end.

    Args:
        settings: of the script.
        steps: the most steps of a run.
        lanes: runs at once on a GPU.
        claim: returns the next run that a function accepts; None if there is none.
        end: see `Clock`; runs that have not ended by then are dropped.
    """
    clock = Clock(end)
    senet.set_fused(settings.fused)
    with tf32_products(settings.device == "cuda"):
        session = Session(settings)
        found = make_lanes(session, steps, lanes)
        while time.time() < end:
            busy = moved = False
            for lane in found:
                if lane.job is None and (job := claim(clock.fits)) is not None:
                    lane.start(job)
                if lane.job is None:
                    continue
                busy = True
                moved |= lane.advance()
                if (result := lane.result()) is not None:
                    clock.add(result)
                    yield result
            if not busy:
                return
            if not moved:
                time.sleep(_PAUSE)


def run_all(
    settings: Settings, jobs: Sequence[Job], *, lanes: int, workers: int, end: float
) -> Iterator[dict[str, Any]]:
    """Yield the results of all runs that end in time, in the order in which they end.

    Args:
        settings: of the script.
        jobs: runs by priority.
        lanes: runs at once of a process on a GPU.
        workers: processes; 1 is this process.
        end: `time.time()` at which the study ends.

    Raises:
        RuntimeError: a worker process failed, after the results of the others.
    """
    steps = max(job.epochs * (job.images // settings.batch) for job in jobs)
    context = multiprocessing.get_context("spawn")
    position = context.Value("i", 0)
    if workers == 1:
        yield from measure(settings, steps, lanes, _claim(jobs, position), end)
        return
    queue: Any = context.Queue()
    arguments = (settings, jobs, position, queue, steps, lanes, end)
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    running, failures = workers, []
    while running:
        try:
            result = queue.get(timeout=_POLL)
        except Empty:
            if not any(process.is_alive() for process in processes):
                break
            continue
        if isinstance(result, dict):
            yield result
        else:
            running -= 1
            failures += [result] if result else []
    for process in processes:
        process.join(timeout=10)
        if process.exitcode is None:
            process.terminate()
    failures += [f"exit status {process.exitcode}" for process in processes if process.exitcode]
    if failures:
        raise RuntimeError(f"a worker process failed: {failures[0]}")


def _claim(jobs: Sequence[Job], position: Any) -> Callable[[Callable[[Job], bool]], Job | None]:
    """Return a function that takes the next run; `position` is shared by all processes."""

    def claim(fits: Callable[[Job], bool]) -> Job | None:
        with position.get_lock():
            while position.value < len(jobs):
                job = jobs[int(position.value)]
                position.value += 1
                if fits(job):
                    return job
        return None

    return claim


def _work(
    settings: Settings, jobs: Sequence[Job], position: Any, queue: Any, steps: int, lanes: int, end: float
) -> None:
    """Put results into a queue, and at the end the message of an error, or ""."""
    failure = ""
    try:
        torch.set_num_threads(1)
        for result in measure(settings, steps, lanes, _claim(jobs, position), end):
            queue.put(result)
    except Exception as error:
        failure = f"{type(error).__name__}: {first_line(error)}"
        raise
    finally:
        queue.put(failure)
