"""A network in an engine, in a process of its own: `python -m senet.benchmark.engine_process`.

Engines keep threads that spin for a while after a run, so that two engines in one process disturb each other. The
process reads JSON lines: first a `Job`, then `{"steps": N}` for each turn. It answers each with one JSON line.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from senet.deployment.engines import is_exported, load_exported
from senet.utils.choices import BenchEngine
from senet.utils.errors import first_line

__all__ = ["Job", "serve"]


@dataclass(frozen=True)
class Job:
    """What a process runs.

    Attributes:
        engine: runs the network.
        path: an exported file, or a network of `torch.save` for "eager" and "compile".
        shape: of the images, (N, C, H, W).
        threads: number of threads.
    """

    engine: BenchEngine
    path: str
    shape: tuple[int, ...]
    threads: int

    def open(self) -> Callable[[], object]:
        """Open the network, and return a function that runs one step."""
        torch.set_num_threads(self.threads)
        images = torch.randn(self.shape, generator=torch.Generator().manual_seed(0))
        if is_exported(self.path):
            network: Any = load_exported(self.path, threads=self.threads, batch=self.shape[0])
            if network.takes_pixels:
                images = (255 * images.sigmoid()).byte().permute(0, 2, 3, 1).contiguous()
        else:
            # Written by this benchmark a moment ago.
            network = torch.load(self.path, weights_only=False).eval().to(memory_format=torch.channels_last)
            images = images.to(memory_format=torch.channels_last)
        if self.engine == "compile":
            network = torch.compile(network)

        def step() -> Tensor:
            with torch.inference_mode():
                return network(images)  # type: ignore[no-any-return]

        return step


def serve() -> None:
    """Answer the lines of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print in C++ would end up among the answers

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        with redirect_stdout(sys.stderr):
            start = time.perf_counter()
            step = Job(**json.loads(sys.stdin.readline())).open()
            step()
            answer(first_seconds=time.perf_counter() - start)
            for line in sys.stdin:
                answer(seconds=_turn(step, json.loads(line)["steps"]))
    except Exception as error:  # reported by the parent, whatever it is
        answer(error=f"{type(error).__name__}: {first_line(error)}")
        raise


def _turn(step: Callable[[], object], steps: int) -> float:
    """Return the seconds of a step, after one that wakes the threads up and fills the caches."""
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


if __name__ == "__main__":
    serve()
