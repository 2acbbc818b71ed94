"""What the first step costs: the same step in a fresh process, without kernels in any cache on disk."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from senet.benchmark import Setting, Step
from senet.utils.sizes import size_pair

__all__ = ["first_step", "time_first_steps"]

# Where Triton, Inductor and CUDA keep what they compiled.
CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")


def first_step(script: Path, arguments: list[str], timeout: float = 300.0) -> dict[str, Any]:
    """Run a script that prints `time_first_steps`, twice: with empty caches, and with those that it has filled.

    Raises:
        RuntimeError: the script fails; the message has the end of what it says.
    """
    found = {}
    with TemporaryDirectory() as folder:
        environment = os.environ | {name: str(Path(folder) / name.lower()) for name in CACHES}
        for what in ("empty caches", "filled caches"):
            command = [sys.executable, str(script), *arguments]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
            if run.returncode:
                raise RuntimeError(f"{' '.join(command)} failed: {run.stderr[-2000:]}")
            found[what] = json.loads(run.stdout.splitlines()[-1])
    return found


def time_first_steps(networks: dict[str, Any], setting: Setting) -> dict[str, dict[str, float]]:
    """Seconds of the first, second and third step of each network in this process."""
    images = torch.randn(setting.batch, 3, *size_pair(setting.size))
    found = {}
    # The first convolution starts CUDA and its libraries, which is no network's own cost.
    start_up = torch.nn.Conv2d(3, 8, 3).to(setting.device)
    start_up(images[:1].to(setting.device)).sum().backward()
    for name, build in networks.items():
        model = build()
        seconds = []
        since = time.perf_counter()
        step = Step(name, model, images, setting)
        for _ in range(3):
            step()
            step.wait()
            seconds.append(time.perf_counter() - since)
            since = time.perf_counter()
        found[name] = dict(zip(("first", "second", "third"), seconds, strict=True))
    return found
