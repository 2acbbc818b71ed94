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
from senet.utils.keywords import check_keywords
from senet.utils.memory_errors import suggesting_batch
from senet.utils.modes import tf32_products
from senet.utils.progress import Progress, no_progress
from senet.utils.renamed import RENAMED_ARGUMENTS
from senet.utils.sizes import SizeLike, parse_size, size_pair
from senet.version import __version__

__all__ = ["Bench", "Measured", "bench", "hardware", "measure"]


@dataclass(frozen=True)
class Measured:
    """Measurements of one network.

    Attributes:
        name: name of the network.
        parameters: number of parameters.
        seconds: time of a step, median over the rounds.
        images_per_second: computed from `seconds`.
        first_seconds: time of the first step, in which kernels and networks are compiled.
        saved_bytes: activation memory saved for backward, each storage once, without parameters and buffers; None in
            inference.
        peak_bytes: peak memory of a step in addition to the memory allocated before; on a CPU as seen by PyTorch's
            profiler, which does not see memory of libraries such as oneDNN.

    Examples:
        >>> found = senet.bench("se_resnet20", batch=2, size=32, rounds=6)
        >>> found.model.parameters - found.against.parameters  # of SE
        2373
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
    """Comparison of a network with a baseline.

    Attributes:
        ratio: step time of the network divided by that of the baseline in the same round, median over the rounds; below
            1 the network is faster.
        quartiles: first and third quartile of the ratio.
        interval: 95 % bootstrap interval of the median.
        conclusive: whether both ends of the interval are within 5 % of the ratio.
        reason: why the ratio is inconclusive, and the remedy; otherwise empty.
        saved_ratio: ratio of the activation memory saved for backward; None in inference.
        rounds: number of rounds; both networks run in each.
        steps: number of steps of each network in a round.
        warm_up: number of warm-up turns of each network.
        steady: whether the last three warm-up turns agreed within 10 %.
        model: measurements of the network.
        against: measurements of the baseline.
        setting: settings of both.
        hardware: versions, machine and device.

    Examples:
        >>> found = senet.bench("se_resnet20", batch=2, size=32, rounds=6)
        >>> found.rounds, found.conclusive or bool(found.reason)
        (6, True)
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


@check_keywords(**RENAMED_ARGUMENTS)
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
    """Compare the step time of a network with that of a baseline, interleaved in this process.

    Both get the same random images, memory format (channels_last), dtype, optimizer and compile setting, and are warmed
    up until their times agree. Then both run in every round, in alternating order, and every round gives a ratio.

    Args:
        model: a module, which is copied; a name of `list_models`; "timm/NAME" or "torchvision/NAME"; or a
            model file.
        against: baseline, in the same forms; by default the plain network, `model` without SE. Networks built by name
            get as many classes as `model` has.
        mode: "train" for a full training step; "infer" for a forward pass in evaluation mode.
        compile: compile both with `torch.compile`.
        batch: images per step.
        size: pixels of a side of the images, or (height, width); by default the input size of `model`, or 224.
        dtype: "float32"; "tf32" (on a GPU, float32 with TF32 products and convolutions); or "bfloat16" or "float16" by
            autocast.
        threads: number of threads of PyTorch; unchanged by default.
        device: "auto", "cpu" or "cuda".
        cuda_graph: capture each network's step as a CUDA graph and replay it.
        rounds: number of rounds; by default as many as fit into `seconds`, and 9 or more.
        seconds: time of all rounds, without the warm-up.
        progress: shows progress.
        clock: returns points in time, whose differences are seconds; by default CUDA events on a GPU and
            `time.perf_counter` on a CPU.

    Returns:
        The ratio with its spread. Check `conclusive` before relying on it.

    Raises:
        ValueError: a name is unknown, a value is invalid, `model` has no SE and there is no baseline, or a network does
            not accept the images.
        CaptureError: a step cannot be captured in a CUDA graph.
        ModelFileError: a file cannot be loaded.
        TypeError: a network is neither a module nor a string.

    Examples:
        >>> found = senet.bench("se_resnet20", batch=2, size=32, rounds=6)
        >>> low, high = found.interval
        >>> low <= found.ratio <= high, found.model.name, found.against.name
        (True, 'se_resnet20', 'resnet20')
    """
    # Checked before building networks; the size may be replaced by that of the network.
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
    baseline = plain_twin(name, network) if against is None else open_network(against, num_classes=_classes(network))
    sides, times = measure(
        [(name, network), baseline], setting, rounds=rounds, seconds=seconds, progress=progress, clock=clock
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
        networks: names and networks, which are modified.
        setting: settings of all networks.
        rounds, seconds, progress, clock: see `bench`.
        fused: backend of the batch norms of each network, see `senet.set_fused`; None for that of the process.
        warm_up: maximum number of warm-up turns of each network.

    Returns:
        Measurements of each network, and all times.

    Raises:
        ValueError: a network does not accept the images, or has no parameter to train.
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
            steps[number]()  # one-time work such as compiling does not count as memory of a step
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
    """Return versions of senet, PyTorch and Python, system, processor and device, to report with every time."""
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
    """Return the version of Triton; None for CPU builds of PyTorch, which lack it."""
    return str(import_module("triton").__version__) if find_spec("triton") else None


def _classes(model: nn.Module) -> int | None:
    """Return the number of classes of a network: `num_classes`, or the size of its last linear layer."""
    classes = getattr(model, "num_classes", None)
    if not isinstance(classes, int):
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        classes = linear[-1].out_features if linear else None
    return classes or None


def _processor() -> str:
    """Return the name of the processor, or "" if the system does not provide it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@contextmanager
def _in_force(setting: Setting) -> Iterator[None]:
    """Apply threads and TF32. Raise an error at the recompile limit instead of running eagerly.

    The choice of `set_fused` is restored, since steps may change it.
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
