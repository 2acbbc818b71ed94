"""Time of an exported network by operation, from the profiler of its engine."""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["profile"]

# Runs before, and in the profile.
WARM_UP, RUNS = 5, 40


def profile(path: Path, shape: tuple[int, ...], threads: int) -> dict[str, float]:
    """Return the milliseconds of a run by the type of the operations; parts that take none are left out.

    Args:
        path: an `.onnx` or `.xml` file with one input.
        shape: of the images.
        threads: of the engine.
    """
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    found = (_onnxruntime if path.suffix == ".onnx" else _openvino)(path, images, threads)
    return {kind: time for kind, time in sorted(found.items(), key=lambda item: -item[1]) if time > 0}


def _onnxruntime(path: Path, images: NDArray[np.float32], threads: int) -> dict[str, float]:
    """Return the sums of the medians of each node."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_profiling = True
    with TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        _repeat(lambda: session.run(None, {session.get_inputs()[0].name: images}), WARM_UP + RUNS)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes: dict[str, list[Any]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["name"]].append(event)
    found: dict[str, float] = defaultdict(float)
    for runs in nodes.values():
        found[runs[0]["args"]["op_name"]] += median(event["dur"] for event in runs[WARM_UP:]) / 1000
    return found


def _openvino(path: Path, images: NDArray[np.float32], threads: int) -> dict[str, float]:
    """Return the means over all runs, as OpenVINO counts them."""
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(path, "CPU", options | {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    _repeat(lambda: request.infer({0: images}), WARM_UP + RUNS)
    found: dict[str, float] = defaultdict(float)
    for node in request.profiling_info:
        found[node.node_type] += node.real_time.total_seconds() * 1000
    return found


def _repeat(step: Callable[[], object], times: int) -> None:
    for _ in range(times):
        step()
