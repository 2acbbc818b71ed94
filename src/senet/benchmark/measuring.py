"""Measure networks with interleaved steps in one process; `bench` measures one network against one opponent."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from senet.benchmark.networks import image_channels, open_network, plain_twin
from senet.benchmark.ratios import ratio
from senet.benchmark.steps import Setting, Step
from senet.benchmark.timing import LIMIT, Clock, Times, check_length, clock_for, interleave
from senet.costs.tables import image_size
from senet.nn.fused import fused_choice, set_fused
from senet.utils.choices import BenchDevice, BenchMode, Dtype
from senet.utils.memory_errors import suggesting_batch
from senet.utils.modes import tf32_products
from senet.utils.progress import Progress, no_progress
from senet.utils.sizes import SizeLike, parse_size, size_pair
from senet.version import __version__

__all__ = ["Bench", "Measured", "bench", "hardware", "measure"]


@dataclass(frozen=True)
class Measured:
    """One network of a measurement.

    Attributes:
        name: what it is called.
        parameters: how many.
        seconds: of a step, the median over the rounds.
        images_per_second: from that.
        first_seconds: of the first whole step, in which kernels and networks are compiled.
        saved_bytes: that a forward pass keeps for backward, each storage once, without parameters and buffers; None in
            inference.
        peak_bytes: the most that is allocated in a step beyond what is there before it; on a CPU by PyTorch's profiler,
            which does not see what a library such as oneDNN takes by itself.
    """

    name: str
    parameters: int
    seconds: float
    images_per_second: float
    first_seconds: float
    saved_bytes: int | None
    peak_bytes: int


@dataclass(frozen=True)
class Bench:
    """A network against another.

    Attributes:
        ratio: of the time of the network's step to its opponent's in the same round, median over the rounds; below 1,
            the network is faster.
        quartiles: of the ratio, the first and the third.
        interval: the 95 % bootstrap interval of the median.
        conclusive: whether the interval is narrow enough: both ends within 5 % of the ratio.
        reason: why it is not conclusive, and the remedy; empty where it is.
        saved_ratio: of the bytes that are saved for backward; None in inference.
        rounds: in each, both have a turn.
        steps: of each in a turn.
        warm_up: turns of each before the first round, and whether the last three agreed within 10 % (`steady`).
        model: the network.
        against: its opponent.
        setting: what is the same for both.
        hardware: versions, machine and device.
    """

    ratio: float
    quartiles: tuple[float, float]
    interval: tuple[float, float]
    conclusive: bool
    reason: str
    saved_ratio: float | None
    rounds: int
    steps: int
    warm_up: int
    steady: bool
    model: Measured
    against: Measured
    setting: Setting
    hardware: dict[str, Any]


def bench(
    model: nn.Module | str,
    against: nn.Module | str | None = None,
    *,
    mode: BenchMode = "train",
    compile: bool = False,
    batch: int = 16,
    size: SizeLike | None = None,
    dtype: Dtype = "float32",
    threads: int | None = None,
    device: BenchDevice = "auto",
    cuda_graph: bool = False,
    rounds: int | None = None,
    seconds: float = 60.0,
    progress: Progress = no_progress,
    clock: Clock | None = None,
) -> Bench:
    """Compare the time of a network's step with another network's, interleaved in this process.

    Both have the same random images, memory format (channels_last), dtype, optimizer and compile setting. Each is
    warmed up until its times agree. Then each has a turn in every round, in alternating order, and every round gives a
    ratio.

    Args:
        model: a module, of which a copy is measured; a name of `list_models`; "timm/NAME" or "torchvision/NAME"; or a
            model file.
        against: the same; the plain twin unless given, which is the network with SE taken out. What is built by a name
            gets as many classes as `model` has.
        mode: "train", a whole training step; or "infer", a forward pass in evaluation mode.
        compile: put both through `torch.compile`.
        batch: images of a step.
        size: pixels of a side of the images, or (height, width); those that `model` was made for unless given, 224
            where it does not say.
        dtype: "float32"; "tf32" (on a GPU, float32 with TF32 products and convolutions); or "bfloat16" or "float16" by
            autocast.
        threads: of PyTorch; those that it has unless given.
        device: "auto", "cpu" or "cuda".
        cuda_graph: capture each network's step as a CUDA graph and replay it.
        rounds: as many as fit into `seconds`, and 9 or more, unless given.
        seconds: of the rounds together; the warm-up comes before.
        progress: shows progress.
        clock: marks a point in time; differences are seconds. CUDA events on a GPU and `time.perf_counter` on a CPU,
            unless given.

    Returns:
        The ratio with its spread. Check `conclusive` before relying on it.

    Raises:
        ValueError: an unknown name, an invalid value, a plain network without an opponent, or images that a network
            cannot take.
        CaptureError: a step cannot be captured in a CUDA graph.
        ModelFileError: a file cannot be loaded.
        TypeError: a network that is neither a module nor text.
    """
    # Checked before anything is built; the size may be the network's.
    setting = Setting(
        mode=mode,
        compile=compile,
        batch=batch,
        size=224 if size is None else size,
        dtype=dtype,
        threads=torch.get_num_threads() if threads is None else threads,
        device=device,
        cuda_graph=cuda_graph,
    )
    check_length(rounds, seconds)
    name, network = open_network(model)
    if size is None:
        setting = replace(setting, size=parse_size(image_size(network)[1:], "input_size"))
    opponent = plain_twin(name, network) if against is None else open_network(against, num_classes=_classes(network))
    sides, times = measure(
        [(name, network), opponent], setting, rounds=rounds, seconds=seconds, progress=progress, clock=clock
    )
    found = ratio(times.seconds[:, 0], times.seconds[:, 1])
    saved = [side.saved_bytes for side in sides]
    return Bench(
        ratio=found.median,
        quartiles=found.quartiles,
        interval=found.interval,
        conclusive=found.conclusive,
        reason=found.reason,
        saved_ratio=saved[0] / saved[1] if saved[0] is not None and saved[1] else None,
        rounds=found.rounds,
        steps=times.steps,
        warm_up=times.warm_up,
        steady=times.steady,
        model=sides[0],
        against=sides[1],
        setting=setting,
        hardware=hardware(setting.device),
    )


def measure(
    networks: Sequence[tuple[str, nn.Module]],
    setting: Setting,
    *,
    rounds: int | None = None,
    seconds: float = 60.0,
    progress: Progress = no_progress,
    clock: Clock | None = None,
    fused: Sequence[str | None] | None = None,
    warm_up: int = LIMIT,
) -> tuple[list[Measured], Times]:
    """Measure any number of networks, interleaved.

    Args:
        networks: names and networks, which are changed.
        setting: the same for all.
        rounds, seconds, progress, clock: as for `bench`.
        fused: how the batch norms of each network are computed, see `senet.set_fused`; None is as chosen for the
            process.
        warm_up: turns of each before the first round, at most.

    Returns:
        What was measured of each, and all times.

    Raises:
        ValueError: images that a network cannot take, or nothing to train.
    """
    shape = (setting.batch, image_channels(networks[0][1]), *size_pair(setting.size))
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with _in_force(setting), suggesting_batch(setting.batch):
        choices = fused or [None] * len(networks)
        steps = [
            Step(name, model, images, setting, choice) for (name, model), choice in zip(networks, choices, strict=True)
        ]
        once = []
        for number in progress(range(len(steps)), len(steps), "compile" if setting.compile else "measure memory"):
            start = time.perf_counter()
            steps[number]()  # what is done once, such as compiling, is no part of a step's memory
            steps[number].wait()
            first = time.perf_counter() - start
            once.append((first, steps[number].saved_bytes(), steps[number].peak_bytes()))
            if setting.cuda_graph:
                steps[number].capture()
        clock = clock or clock_for(setting.device)
        times = interleave(steps, clock, rounds=rounds, seconds=seconds, warm_up=warm_up, progress=progress)
    medians = np.median(times.seconds, axis=0).tolist()
    return [
        Measured(step.name, step.parameters, median, setting.batch / median, *more)
        for step, median, more in zip(steps, medians, once, strict=True)
    ], times


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Return what to report with every time: versions of senet, PyTorch and Python, system, processor and device."""
    found: dict[str, Any] = {"senet": __version__, "torch": torch.__version__}
    found |= {library: version(library) for library in ("torchvision", "timm")}
    found |= {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
    }
    if device == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "triton": _triton(),
        }
    return found


def _triton() -> str | None:
    """The version of Triton, with which PyTorch for the CPU alone does not come."""
    return str(import_module("triton").__version__) if find_spec("triton") else None


def _classes(model: nn.Module) -> int | None:
    """As many as a network says that it has; torchvision's and others' last layer says it."""
    classes = getattr(model, "num_classes", None)
    if not isinstance(classes, int):
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        classes = linear[-1].out_features if linear else None
    return classes or None


def _processor() -> str:
    """Its name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@contextmanager
def _in_force(setting: Setting) -> Iterator[None]:
    """Threads and TF32 as set. A network that would be compiled again and again fails instead of running eagerly.

    What `set_fused` chose is restored, since steps may set it.
    """
    from torch._dynamo import config

    threads, choice = torch.get_num_threads(), fused_choice()
    torch.set_num_threads(setting.threads)
    try:
        with config.patch(fail_on_recompile_limit_hit=True), tf32_products(setting.dtype == "tf32"):
            yield
    finally:
        torch.set_num_threads(threads)
        set_fused(choice)
