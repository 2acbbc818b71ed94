"""The section of docs/deploy.md with the results of `benchmarks/quantization.py`."""

from textwrap import fill
from typing import Any

import numpy as np
from common import markdown

from quantization_cases.engines import TOOLS

__all__ = ["sections"]

_KEPT = {
    "float32": "float32",
    "none": "everything in 8 bits",
    "gate": "squeeze, layers and gate in float32",
    "block": "the product as well",
}
_VALUES = {
    "map": "map, before the product",
    "map, by channel": "map, with a scale for each channel",
    "squeeze": "squeeze",
    "squeeze, in steps of the map": "squeeze, with the scale of the map",
    "hidden units": "hidden units",
    "before the gate": "input of the gate",
    "gate": "gate",
    "output": "output, after the product",
}


def sections(results: dict[str, Any]) -> list[str]:
    """Return Markdown of the results."""
    cases, parts = results["cases"], [_caption(results["about"])]
    for tool, engine in TOOLS.items():
        rows = [
            [f"`{name.partition(', ')[0]}`", _KEPT[level], *_cells(found, level)]
            for name, case in cases.items()
            if name.endswith(f", {tool}")
            for level, found in case.items()
        ]
        if rows:
            header = ["network", "", "top-1 error", "difference", "same class", "logits", "choice", "size", "time"]
            parts += [f"#### {engine}", markdown(header, rows)]
    ranges = {name.partition(", ")[0]: case["effects"] for name, case in cases.items() if name.endswith(", ranges")}
    if ranges:
        parts += ["#### One value of SE in 8 bits", _ranges(ranges)]
    return parts


def _caption(about: dict[str, Any]) -> str:
    facts = about["hardware"]
    smoke = "**A smoke test with few images: the figures are no measurement.** " if about["smoke test"] else ""
    text = (
        f"{smoke}{facts['processor'] or facts['machine']}, {facts['capability']}, one thread; ONNX Runtime "
        f"{about['onnxruntime']}, OpenVINO {about['openvino']}, NNCF {about['nncf']}, ONNX {about['onnx']}, PyTorch "
        f"{facts['torch']}, senet {facts['senet']}. Difference: of the error from float32 on the same images, in "
        f"points, with its 95 % interval. Logits: signal-to-noise ratio against float32; 6 dB are one bit. All are of "
        f"every other validation image; choice: logits of the remaining images, by which levels were chosen. Time: of "
        f"a batch of 8 relative to float32, median and quartiles of interleaved rounds; `?` marks an inconclusive "
        f"ratio."
    )
    return fill(text, 118, break_on_hyphens=False)


def _cells(found: dict[str, Any], level: str) -> list[str]:
    size = f"{found['bytes'] / 1000:.0f} kB"
    if level == "float32":
        return [f"{found['error']:.2f} %", "", "", "", "", size, "1"]
    change, time = found["difference"], found.get("time")
    speed = "-"
    if time:
        low, high = time["quartiles"]
        speed = f"{time['median']:.2f}{'' if time['conclusive'] else ' ?'} ({low:.2f} to {high:.2f})"
    return [
        f"{found['error']:.2f} %",
        f"{change['mean']:+.2f} ({change['low']:+.2f} to {change['high']:+.2f})",
        f"{100 * found['agreement']:.1f} %",
        f"{found['decibels']:.1f} dB",
        f"{found['choice']:.1f} dB",
        size,
        speed,
    ]


def _ranges(ranges: dict[str, list[dict[str, Any]]]) -> str:
    rows = []
    for value, label in _VALUES.items():
        cells = []
        for effects in ranges.values():
            ratios = [row["decibels"][value] for row in effects]
            cells.append(f"{np.median(ratios):.0f} dB ({min(ratios):.0f} to {max(ratios):.0f})")
        rows.append([label, *cells])
    return markdown(["rounded to 8 bits", *(f"`{name}`" for name in ranges)], rows)
