"""The host's time for batch norm, SE, sum and ReLU as one operation, in microseconds, by line.

Where maps are small, Python decides how long a step takes: a GPU waits for its next kernel. On a machine without a GPU
the kernels are not run, and all but the calls of the CUDA driver is measured; with one, they are, on maps so small that
the GPU waits for the host. Lines are timed by tracing, which makes Python slower; their times are scaled, so that
together they are what a call takes without it. The share of a line includes what it calls outside of senet.

    python benchmarks/host.py
    python benchmarks/host.py --channels 256 --hidden 16 --rounds 15 --lines 40
"""

import argparse
import inspect
import linecache
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import senet
from senet.nn.fused import autograd as whole
from senet.nn.fused.triton import launch as triton_launch
from senet.nn.fused.triton import whole_operation
from senet.nn.sum_relu import sum_relu

ROOT = str(Path(inspect.getfile(senet)).parent)


class _Compiled:
    """In place of a compiled kernel, where there is no GPU."""

    function = packed_metadata = None
    metadata = SimpleNamespace(global_scratch_size=0, profile_scratch_size=0)

    def run(self, *arguments: Any) -> None:
        """Launch nothing."""


def _kernel(kernel: Any, grid: Any) -> Callable[..., _Compiled]:
    """Triton's own launch, the first time."""
    return lambda *arguments, **constants: _Compiled()


def _minus_one() -> int:
    """The device of tensors of the CPU."""
    return -1


def _triton(y: Tensor) -> Any:
    return whole_operation


def without_gpu() -> ExitStack:
    """Triton's kernels are chosen on the CPU, and launched with all checks, but do nothing."""
    stack = ExitStack()
    jit = sys.modules["triton.runtime.jit"].KernelInterface
    for patch in (
        mock.patch.object(jit, "__getitem__", new=_kernel),
        mock.patch.object(triton_launch, "_current_device", new=_minus_one),
        mock.patch.object(triton_launch, "_current_stream", new=int),
        mock.patch.object(whole, "whole_backend", new=_triton),
    ):
        stack.enter_context(patch)
    return stack


def microseconds(call: Callable[[], Any], rounds: int, calls: int, device: str) -> list[float]:
    """Of each round, the mean time of a call."""
    found = []
    for _ in range(rounds):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.thread_time_ns() if device == "cpu" else time.perf_counter_ns()
        for _ in range(calls):
            call()
        end = time.thread_time_ns() if device == "cpu" else time.perf_counter_ns()
        found.append((end - start) / calls / 1000)
    return sorted(found)


def by_line(call: Callable[[], Any], calls: int) -> dict[tuple[str, int], float]:
    """Shares of lines of senet in the time of a call, which add up to 1."""
    times: dict[tuple[str, int], int] = defaultdict(int)
    clock = time.thread_time_ns
    current: list[tuple[str, int] | None] = [None]
    last = [0]

    def settle(line: tuple[str, int] | None) -> None:
        now = clock()
        if current[0] is not None:
            times[current[0]] += now - last[0]
        current[0], last[0] = line, clock()

    def local(frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            settle((frame.f_code.co_filename, frame.f_lineno))
        elif event == "return":
            caller = frame.f_back
            inside = caller is not None and caller.f_code.co_filename.startswith(ROOT)
            settle((caller.f_code.co_filename, caller.f_lineno) if inside else None)
        return local

    def entered(frame: Any, event: str, _: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(ROOT) else None

    sys.settrace(entered)
    try:
        for _ in range(calls):
            call()
    finally:
        sys.settrace(None)
    total = sum(times.values())
    return {line: spent / total for line, spent in times.items()}


def report(name: str, call: Callable[[], Any], args: argparse.Namespace) -> None:
    """Print what a call takes, and its lines."""
    for _ in range(20):
        call()
    found = microseconds(call, args.rounds, args.calls, args.device)
    low, median, high = found[len(found) // 4], statistics.median(found), found[-1 - len(found) // 4]
    print(f"\n{name}: {median:.1f} us (quartiles {low:.1f} to {high:.1f})")
    shares = sorted(by_line(call, args.calls).items(), key=lambda item: -item[1])
    for (path, line), share in shares[: args.lines]:
        text = linecache.getline(path, line).strip()[:90]
        print(f"{share * median:6.2f}  {Path(path).name}:{line}  {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=500, help="in a round")
    parser.add_argument("--lines", type=int, default=25, help="to print of each pass")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        if args.device == "cpu":
            stack.enter_context(without_gpu())
        se = senet.SqueezeExcitation(args.channels, hidden_channels=args.hidden)
        bn = senet.SEBatchNorm(args.channels, se=se, dim=2).to(args.device)
        shape = (2, args.channels, 2, 2)
        y, skip, g = (
            torch.randn(shape, device=args.device).contiguous(memory_format=torch.channels_last) for _ in range(3)
        )
        y.requires_grad_()
        skip.requires_grad_()
        inputs = [y, skip, *bn.parameters()]

        def forward() -> Any:
            return sum_relu(bn, y, skip)

        kept = forward()
        node = kept.grad_fn

        def backward() -> Any:
            return torch.autograd.grad(kept, inputs, g, retain_graph=True)

        plain = nn.BatchNorm2d(args.channels).to(args.device)
        print(f"{args.device}, PyTorch {torch.__version__}, map {shape}, hidden {args.hidden}")
        report("forward", forward, args)
        with torch.no_grad():
            report("backward", lambda: node.apply(g), args)
        backward()
        engine = microseconds(backward, args.rounds, args.calls, args.device)
        print(f"\nbackward by autograd's engine: {statistics.median(engine):.1f} us")
        usual = lambda: torch.relu(plain(y) + skip)  # noqa: E731
        print(f"\nPyTorch's batch norm, sum and ReLU, forward: {microseconds(usual, 5, 200, args.device)[2]:.1f} us")


if __name__ == "__main__":
    main()
