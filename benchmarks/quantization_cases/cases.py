"""Errors, sizes and speed of a network in float32 and in 8 bits, with more or less of SE in float32."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from quantization_cases.engines import Array, Written, quantize
from senet.benchmark import interleave, ratio
from senet.deployment.quantization import KeepFloat

__all__ = ["Images", "compare", "decibels", "paired"]

# Images of a batch in evaluation.
_EVALUATED = 50
# Every other image serves the choice of what stays in float32; results are those of the others.
_CHOICE, _REPORT = slice(0, None, 2), slice(1, None, 2)


@dataclass(frozen=True)
class Images:
    """What networks are quantized and evaluated with.

    Attributes:
        calibration: batches (N, C, H, W) of training images.
        images: (V, C, H, W), validation images.
        labels: (V,), their classes.
        timed: images of a batch whose time is measured.
        seconds: time of all measurements of speed of a case; 0 measures none.
    """

    calibration: Sequence[Tensor]
    images: Array
    labels: Array
    timed: int = 8
    seconds: float = 20.0


def compare(given: Written, levels: Sequence[KeepFloat], images: Images) -> dict[str, Any]:
    """Quantize a network with each part of SE in float32, and compare with float32.

    Returns:
        For "float32" and each level, on every other image: the error in percent; its difference from float32 in points
        with a 95 % interval; the share of images with the same class; the signal-to-noise ratio of the logits in dB,
        also on the remaining images ("choice"); bytes; and the time of a batch relative to float32.
    """
    found: dict[str, Any] = {}
    written = {"float32": given}
    reference, labels = _logits(given, images.images), images.labels[_REPORT]
    found["float32"] = {"error": _error(reference[_REPORT], labels), "bytes": given.bytes}
    for level in levels:
        start = time.perf_counter()
        written[level] = quantize(given, level, images.calibration)
        seconds = time.perf_counter() - start
        logits = _logits(written[level], images.images)
        before, after = reference[_REPORT], logits[_REPORT]
        found[level] = {
            "error": _error(after, labels),
            "difference": paired(before, after, labels),
            "agreement": float(np.mean(before.argmax(1) == after.argmax(1))),
            "decibels": decibels(before, after),
            "choice": decibels(reference[_CHOICE], logits[_CHOICE]),
            "bytes": written[level].bytes,
            "quantization seconds": round(seconds, 1),
        }
    if images.seconds:
        batch = np.ascontiguousarray(images.images[: images.timed])
        runners = [one.runner() for one in written.values()]
        sides = [lambda run=run: run(batch) for run in runners]
        times = interleave(sides, time.perf_counter, seconds=images.seconds)
        for column, one in enumerate(found.values()):
            one["milliseconds"] = 1000 * float(np.median(times.seconds[:, column]))
            if column:
                spread = ratio(times.seconds[:, column], times.seconds[:, 0])
                one["time"] = asdict(spread) | {"conclusive": spread.conclusive}
    return found


def paired(before: Array, after: Array, labels: Array) -> dict[str, float]:
    """Return the mean difference of two errors on the same images in points, with its 95 % interval."""
    wrong = [(logits.argmax(1) != labels).astype(float) for logits in (before, after)]
    change = 100 * (wrong[1] - wrong[0])
    half = 1.96 * float(change.std(ddof=1)) / np.sqrt(len(change))
    mean = float(change.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half}


def decibels(signal: Array, changed: Array) -> float:
    """Return the signal-to-noise ratio of a changed signal in dB: 6 dB are one bit."""
    noise = float(((changed.astype(np.float64) - signal) ** 2).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10((signal.astype(np.float64) ** 2).sum() / noise))


def _logits(written: Written, images: Array) -> Array:
    run = written.runner()
    step = _EVALUATED
    return np.concatenate([run(images[start : start + step]) for start in range(0, len(images), step)])


def _error(logits: Array, labels: Array) -> float:
    return 100 * float(np.mean(logits.argmax(1) != labels))
