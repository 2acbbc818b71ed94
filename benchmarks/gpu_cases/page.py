"""The section of docs/performance.md with the results of `benchmarks/gpu.py`."""

from textwrap import fill
from typing import Any

from common import cell, markdown, spread
from ratio_chart import pictures

__all__ = ["sections"]

STEPS = {
    "train-bf16-256": "bf16, 256",
    "train-bf16-128": "bf16, 128",
    "train-bf16-16": "bf16, 16",
    "train-tf32-64": "tf32, 64",
    "graph-bf16-128": "CUDA graph, 128",
    "graph-bf16-16": "CUDA graph, 16",
    "compiled-bf16-128": "compiled, 128",
}
INFERENCE = {"infer-bf16-256": "batch 256", "infer-bf16-32": "batch 32", "infer-bf16-1": "batch 1"}


def sections(results: dict[str, Any], chart: str) -> list[str]:
    """Return Markdown of what was measured, and what was not.

    Args:
        results: what `benchmarks/gpu.py` measured.
        chart: file name of the chart next to the page, without .png.
    """
    cases, about = results["cases"], results["about"]
    measured = {name: case for name, case in cases.items() if "failed" not in case and "left out" not in case}
    parts = [_caption(about)]
    if any(name in STEPS for name in measured):
        parts.append(pictures("Time of a training step relative to the plain network, with quartiles.", chart))
    for title, columns in (("Training step", STEPS), ("Inference, eager, bf16", INFERENCE)):
        chosen = {name: label for name, label in columns.items() if name in measured}
        if chosen:
            parts += [f"### {title}: time, to the plain twin", _steps(measured, chosen, _ratio)]
            parts += [f"### {title}: images/s", _steps(measured, chosen, _speed)]
    training = {name: label for name, label in STEPS.items() if name in measured and "graph" not in name}
    if training:
        parts += ["### Training step: peak memory, to the plain twin", _steps(measured, training, _peak)]
    for name, table in (
        ("trainer", _trainer),
        ("numerics", _numerics),
        ("first-step", _first_step),
        ("host-time", _host),
        ("device-time", _device),
    ):
        if name in measured:
            parts.append(table(measured[name]))
    missing = [
        f"- `{name}`: {case.get('failed') or case['left out']}" for name, case in cases.items() if name not in measured
    ]
    return parts + (["### Not measured", "\n".join(missing)] if missing else [])


def _caption(about: dict[str, Any]) -> str:
    facts = about["hardware"]
    smoke = "**A smoke test with tiny sizes: the figures are no measurement.** " if about["smoke test"] else ""
    device = facts.get("gpu") or f"{facts['processor'] or facts['machine']} (CPU)"
    gpu = f", CUDA {facts['cuda']}, cuDNN {facts['cudnn']}, Triton {facts['triton']}" if "gpu" in facts else ""
    text = (
        f"{smoke}{device}; PyTorch {facts['torch']}{gpu}, torchvision {facts['torchvision']}, timm {facts['timm']}, "
        f"senet {facts['senet']}; SE fused by `{about['backend']}`. Medians over interleaved rounds, with quartiles; "
        f"`?` marks an inconclusive ratio, whose 95 % interval reaches more than 5 % from the median."
    )
    return fill(text, 118, break_on_hyphens=False)


def _steps(cases: dict[str, Any], columns: dict[str, str], show: Any) -> str:
    """A row for each network, a column for each case."""
    names = list(dict.fromkeys(side["name"] for name in columns for side in cases[name]["sides"]))
    rows = []
    for network in names:
        row = [f"`{network}`"]
        for name in columns:
            side = next((side for side in cases[name]["sides"] if side["name"] == network), None)
            row.append("-" if side is None else show(side))
        rows.append(row)
    return markdown(["network", *columns.values()], rows)


def _ratio(side: dict[str, Any]) -> str:
    found = cell(side, "twin")
    if found == "-":
        return "1" if side["base"]["name"] == side["name"] else f"1; to the first {cell(side, 'base')}"
    return found + (f"; to the fused plain network {spread(side['also'])}" if "also" in side else "")


def _speed(side: dict[str, Any]) -> str:
    median, low, high = (f"{x:,.0f}" for x in (side["images_per_second"], *side["images_per_second_quartiles"]))
    return f"{median} ({low} to {high})"


def _peak(side: dict[str, Any]) -> str:
    return f"{side['peak_bytes'] / 1e9:.3g} GB" + (
        "" if side.get("twin", side["base"])["name"] == side["name"] else f" ({side['twin']['peak']:.4f})"
    )


def _trainer(case: dict[str, Any]) -> str:
    rows = []
    for side in case["sides"]:
        speed = _speed(side | {"images_per_second_quartiles": side["quartiles"]})
        plain = side["name"] == side["twin"]["name"]
        rows.append([f"`{side['name']}`", side["cuda_graph"], speed, "1" if plain else spread(side["twin"])])
    table = markdown(["network", "`cuda_graph`", "images/s", "time, to the plain twin"], rows)
    notices = "".join(f"\n\n{text}" for text in dict.fromkeys(case["notices"]))
    return f"### `senet train`, 32x32, batch {case['batch']}, {case['precision']}\n\n{table}{notices}"


def _numerics(case: dict[str, Any]) -> str:
    groups = {
        "output": ("out",),
        "running statistics": ("running_mean", "running_var"),
        "gradients of maps": ("d y", "d skip"),
        "of batch norm": ("d weight", "d bias"),
        "of SE": ("d fc1.weight", "d fc1.bias", "d fc2.weight", "d fc2.bias"),
    }
    rows = [
        [name, *(f"{max(errors[key] for key in keys if key in errors):.0e}" for keys in groups.values())]
        for name, errors in case["errors"].items()
    ]
    bits = "the same bits" if case["same bits twice"] else "**different bits**"
    over = f" Larger than rounding explains: {'; '.join(case['over tolerance'])}." if case["over tolerance"] else ""
    return (
        f"### Errors against float64 autograd\n\n{markdown(['maps, layout', *groups], rows)}\n\n"
        f"Relative errors (of norms), the largest over shapes. Two runs give {bits}.{over}"
    )


def _first_step(case: dict[str, Any]) -> str:
    rows = [
        [f"`{name}`", what, *(f"{seconds[key]:.2f}" for key in ("first", "second", "third"))]
        for what, networks in case.items()
        if isinstance(networks, dict)
        for name, seconds in networks.items()
    ]
    table = markdown(["network", "on disk", "first step, s", "second", "third"], rows)
    return f"### First step of a process\n\n{table}"


def _host(case: dict[str, Any]) -> str:
    rows = [
        [name, *(_microseconds(times[what]) for what in ("forward", "backward"))]
        for name, times in case["microseconds"].items()
    ]
    functions = [
        [f"`{row['function']}`", f"{row['calls']:g}", f"{row['microseconds']:.1f}", f"{row['with callees']:.1f}"]
        for row in case["functions"]
    ]
    return (
        f"### Host time of a layer, microseconds\n\n{markdown(['layer', 'forward', 'backward'], rows)}\n\n"
        f"Of our layer, by function (the profiler adds to each call):\n\n"
        f"{markdown(['function', 'calls', 'itself', 'with what it calls'], functions)}"
    )


def _microseconds(times: dict[str, Any]) -> str:
    low, high = times["quartiles"]
    return f"{times['median']:.0f} ({low:.0f} to {high:.0f})"


def _device(case: dict[str, Any]) -> str:
    rows = []
    for entry in case["maps"]:
        for name, kernel in entry["kernels"].items():
            speed = "-" if kernel["GB/s"] is None else f"{kernel['GB/s']:.0f} ({kernel['of copy']:.0%})"
            size = "x".join(map(str, entry["map"]))
            rows.append([f"`{name[:60]}`", size, f"{kernel['microseconds']:.1f}", speed, f"{entry['copy GB/s']:.0f}"])
    return f"### Kernels\n\n{markdown(['kernel', 'map', 'microseconds', 'GB/s (of a copy)', 'copy, GB/s'], rows)}"
