"""The time of one layer: on the host by call and by function, on the device by kernel."""

import cProfile
import pstats
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.layers import SEModule
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

import senet
from senet.benchmark import clock_for
from senet.nn.sum_relu import sum_relu

__all__ = ["MAPS_BY_KERNEL", "device_time", "host_time"]

# Maps that a kernel reads and writes, with sum and ReLU: y; y, skip, out; gradient, out, y and the masked gradient;
# masked gradient, y and the result.
MAPS_BY_KERNEL = {"stats": 1, "scale": 3, "reduce": 4, "gradient": 3}
# (C, side) of the units of ResNet-50 at 224x224.
MAPS = ((256, 56), (512, 28), (1024, 14), (2048, 7))
SMALL = ((8, 4),)
FUNCTIONS = 12


@dataclass
class _Layer:
    """A normalization with sum and ReLU, and its inputs."""

    module: nn.Module
    call: Callable[[Tensor, Tensor], Tensor]
    y: Tensor
    skip: Tensor
    g: Tensor

    def forward(self) -> Tensor:
        with torch.autocast(self.y.device.type, torch.bfloat16):
            return self.call(self.y, self.skip)

    def backward(self, out: Tensor) -> None:
        torch.autograd.grad(out, (self.y, self.skip, *self.module.parameters()), self.g)


def _layers(device: str, N: int, C: int, side: int) -> dict[str, _Layer]:
    def draw() -> Tensor:
        drawn = torch.randn(N, C, side, side, device=device, dtype=torch.bfloat16)
        return drawn.to(memory_format=torch.channels_last)

    y, skip, g = draw().requires_grad_(), draw().requires_grad_(), draw()
    plain = nn.BatchNorm2d(C).to(device)
    ours = senet.SEBatchNorm(C, se=senet.SqueezeExcitation(C)).to(device)
    timm = nn.Sequential(nn.BatchNorm2d(C), SEModule(C, rd_ratio=1 / 16)).to(device)

    def fused(y: Tensor, skip: Tensor) -> Tensor:
        out = sum_relu(ours, y, skip)
        return (ours(y) + skip).relu_() if out is None else out

    return {
        "batch norm, sum, ReLU": _Layer(plain, lambda y, skip: (plain(y) + skip).relu_(), y, skip, g),
        "batch norm, timm's SE, sum, ReLU": _Layer(timm, lambda y, skip: (timm(y) + skip).relu_(), y, skip, g),
        "SEBatchNorm with sum and ReLU": _Layer(ours, fused, y, skip, g),
    }


def host_time(device: str, small: bool) -> dict[str, Any]:
    """Microseconds that the host is busy with a layer's forward and backward calls, and with its functions.

    On a GPU the host only queues work, and the queue is empty before each call. On a CPU the work is counted too.
    """
    calls = 3 if small else 200
    layers = _layers(device, 4, *(SMALL[0] if small else (256, 14)))
    found: dict[str, Any] = {"microseconds": {}}
    for name, layer in layers.items():
        forward, backward = [], []
        for number in range(calls + 3):
            _wait(device)
            start = time.perf_counter_ns()
            out = layer.forward()
            between = time.perf_counter_ns()
            layer.backward(out)
            end = time.perf_counter_ns()
            if number >= 3:  # before that, kernels are compiled and loaded
                forward.append((between - start) / 1000)
                backward.append((end - between) / 1000)
        found["microseconds"][name] = {
            what: {"median": statistics.median(times), "quartiles": _quartiles(times)}
            for what, times in (("forward", forward), ("backward", backward))
        }
    found["functions"] = _functions(layers["SEBatchNorm with sum and ReLU"], calls)
    return found


def _functions(layer: _Layer, calls: int) -> list[dict[str, Any]]:
    """The functions that take most of the host's time in our layer; cProfile itself adds to each call."""
    profile = cProfile.Profile()
    # In this thread, where the profile sees backward too.
    with torch.autograd.set_multithreading_enabled(False):
        for _ in range(calls):
            _wait(layer.y.device.type)
            profile.enable()
            out = layer.forward()
            layer.backward(out)
            profile.disable()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows = sorted(stats.items(), key=lambda item: -item[1][2])[:FUNCTIONS]
    return [
        {
            "function": f"{Path(file).name}:{line} {name}" if line else name,
            "calls": count / calls,
            "microseconds": 1e6 * own / calls,
            "with callees": 1e6 * whole / calls,
        }
        for (file, line, name), (_, count, own, whole, _) in rows
    ]


def device_time(device: str, small: bool) -> list[dict[str, Any]]:
    """Of each size of map: the speed of a copy, and time and speed of each kernel of our layer."""
    found = []
    for C, side in SMALL if small else MAPS:
        layer = _layers(device, 2 if small else 128, C, side)["SEBatchNorm with sum and ReLU"]
        size = layer.y.numel() * layer.y.element_size()
        for _ in range(3):
            layer.backward(layer.forward())
        copy = 2 * size / _seconds(partial(layer.g.copy_, layer.skip.detach()), device) / 1e9
        kernels = {}
        for name, microseconds in _kernels(layer, device).items():
            maps = MAPS_BY_KERNEL.get(name)
            speed = None if maps is None else maps * size / microseconds / 1000
            kernels[name] = {
                "microseconds": microseconds,
                "GB/s": speed,
                "of copy": None if speed is None else speed / copy,
            }
        found.append({"map": list(layer.y.shape), "copy GB/s": copy, "kernels": kernels})
    return found


def _kernels(layer: _Layer, device: str, repeats: int = 5) -> dict[str, float]:
    """Microseconds of each kernel in a forward and backward call; on a CPU, of each operation."""
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(repeats):
            layer.backward(layer.forward())
        _wait(device)
    found: dict[str, float] = {}
    for event in profile.key_averages():
        total = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if total:
            found[event.key] = found.get(event.key, 0.0) + total / repeats
    return dict(sorted(found.items(), key=lambda item: -item[1])[:20])


def _seconds(work: Callable[[], object], device: str, repeats: int = 20) -> float:
    clock = clock_for(device)
    for _ in range(3):
        work()
    start = clock()
    for _ in range(repeats):
        work()
    return float(clock() - start) / repeats


def _quartiles(times: list[float]) -> list[float]:
    low, _, high = statistics.quantiles(times, n=4)
    return [low, high]


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
