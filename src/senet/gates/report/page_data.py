"""Collect and pack the data that the page's scripts read."""

from io import BytesIO
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.gates.diagnosis.analysis import eta_squared
from senet.gates.diagnosis.diagnosis import BlockDiagnosis, Diagnosis
from senet.gates.recording.record import BlockGates, Gates, HiddenUnits, Sample
from senet.gates.recording.statistics import Counts, Floats, Statistics
from senet.gates.report.clustering import binned, cluster_order
from senet.gates.report.detail_levels import DetailLevel
from senet.gates.report.grad_cam import GradCam
from senet.gates.report.packed_arrays import PackedArrays
from senet.gates.report.selection import example_classes, sample_channels, seen_classes
from senet.gates.report.summary import leading_block, summarize

__all__ = ["Orders", "heat_map_orders", "pack_page"]

# For each block, the order of classes with images and the order of channels in the heat map.
Orders = list[tuple[Counts, Counts]]
_PAPER_CHANNELS = 50  # in figure 6
_CELL = 16  # pixels of a JPEG block; thumbnails are padded to whole blocks so that neighbours do not mix


def heat_map_orders(gates: Gates) -> Orders:
    """Return the orders of classes and channels for the heat map of each block."""
    seen = seen_classes(gates)
    return [
        (seen[cluster_order(block.gates.means[seen])], cluster_order(block.gates.means[seen].T))
        for block in gates.blocks
    ]


def pack_page(
    gates: Gates,
    diagnosis: Diagnosis,
    meanings: dict[str, str],
    level: DetailLevel,
    orders: Orders,
    cam: GradCam | None = None,
) -> str:
    """Pack the data of the page as text.

    Args:
        gates: the recording.
        diagnosis: its diagnosis.
        meanings: the meanings of verdicts by name.
        level: the level of detail.
        orders: the orders of classes and channels in heat maps.
        cam: Grad-CAM of a few images.
    """
    pack = PackedArrays()
    seen = seen_classes(gates)
    examples = example_classes(gates)
    kept = _spaced(seen, level.classes, examples)
    wide = _spaced(kept, level.wide, examples)
    blocks = [
        _block(pack, block, verdict, level, pair, kept, wide)
        for block, verdict, pair in zip(gates.blocks, diagnosis.blocks, orders, strict=True)
    ]
    header = {
        "network": gates.network,
        "data": gates.data,
        "complete": gates.complete,
        "images": gates.images,
        "classes": gates.classes,
        "counts": gates.blocks[0].gates.images.tolist(),
        "examples": examples,
        "kept": kept.tolist(),
        "wide": wide.tolist(),
        "bits": level.bits,
        "meanings": meanings,
        "summary": summarize(diagnosis),
        "first": leading_block(diagnosis),
        "advice": list(diagnosis.advice),
        "sample": _sample(pack, gates.sample),
        "cam": None if cam is None else _cam(pack, cam),
        "blocks": blocks,
    }
    return pack.text(header)


def _spaced(indices: Counts, count: int | None, first: list[int]) -> Counts:
    """Return `count` of the indices in ascending order: those in `first`, and others evenly spaced."""
    if count is None or count >= len(indices):
        return indices
    rest = np.setdiff1d(indices, first)
    more = max(0, count - len(first))
    begin = np.array(first[:count], np.int64)
    return np.sort(np.concatenate([begin, rest[(2 * np.arange(more) + 1) * len(rest) // (2 * max(1, more))]]))


def _block(
    pack: PackedArrays,
    block: BlockGates,
    verdict: BlockDiagnosis,
    level: DetailLevel,
    order: tuple[Counts, Counts],
    kept: Counts,
    wide: Counts,
) -> dict[str, Any]:
    sampled = sample_channels(block.channels, level.channels)
    gates = block.gates
    deviations = gates.class_deviations
    everything = len(sampled) == block.channels and len(kept) == np.count_nonzero(gates.images)
    return {
        "name": block.name,
        "label": block.label,
        "stage": block.stage,
        "depth": block.depth,
        "kind": block.kind,
        "gate": block.gate,
        "gain": block.gain,
        "squeeze": block.squeeze,
        "activation": block.activation,
        "channels": block.channels,
        "range": _range(block),
        "verdict": _verdict(verdict),
        "numbers": _channel_figures(pack, block),
        "fifty": sample_channels(block.channels, min(_PAPER_CHANNELS, level.channels)).tolist(),
        "sampled": sampled.tolist(),
        "means": pack.quantized(gates.means[np.ix_(kept, sampled)].T, level.bits),
        "deviations": pack.quantized(deviations[np.ix_(kept, sampled)].T, 8),
        "wideMeans": pack.quantized(gates.means[wide].T, 8),
        "wideDeviations": pack.quantized(deviations[wide].T, 8),
        "extremes": None if everything else _extremes(pack, gates),
        "heat": _heat(pack, gates, level, order),
        "histogram": _histogram(pack, gates, level.bins),
        "ends": _ends(pack, block.sample_gates, level.ends),
        "recorded": {
            "gates": pack.quantized(block.sample_gates[:, sampled].T, 8),
            "squeezes": pack.quantized(block.sample_squeezes[:, sampled].T, 8),
        },
        "hidden": None if block.hidden is None else _hidden(pack, block.hidden),
    }


def _verdict(verdict: BlockDiagnosis) -> dict[str, Any]:
    ablations = [
        {
            "by": one.by,
            "logits": _finite(one.logits),
            "errors": list(one.errors),
            "judged": {"points": one.judged.points, "outputs": one.judged.outputs, "better": one.better},
            **{
                key: None if span is None else [_finite(part) for part in (span.value, span.low, span.high)]
                for key, span in spans.items()
            },
        }
        for one in verdict.ablations
        for spans in [{"top1": one.top1, "top5": one.top5, "loss": one.loss}]
    ]
    return {
        "names": list(verdict.verdicts),
        "figures": {key: _finite(value) for key, value in verdict.figures.items()},
        "reasons": list(verdict.reasons),
        "advice": list(verdict.advice),
        "ablations": ablations,
    }


def _finite(value: float | None) -> float | None:
    """Return None for infinity and nan, which JSON does not have."""
    return None if value is None or not np.isfinite(value) else float(value)


def _range(block: BlockGates) -> list[float]:
    """Return the range of the gate axis: the range of a sigmoid, or the recorded range of another gate."""
    if "sigmoid" in block.gate.lower() and block.gain > 0:
        return [0.0, float(block.gain)]
    low, high = float(block.gates.minimum.min()), float(block.gates.maximum.max())
    if not np.isfinite([low, high]).all() or low == high:
        return [0.0, 1.0] if not np.isfinite(low) else [low - 0.5, high + 0.5]
    return [min(0.0, low), high]


def _channel_figures(pack: PackedArrays, block: BlockGates) -> dict[str, Any]:
    """Pack the figures of each channel."""
    gates, images = block.gates, max(1, block.gates.total)
    figures = {
        "mean": gates.mean,
        "deviation": np.sqrt(gates.variance),
        "within": np.sqrt(gates.within / images),
        "eta": np.nan_to_num(eta_squared(gates)),  # 0 for constant channels
        "minimum": gates.minimum,
        "maximum": gates.maximum,
        "squeeze": block.squeezes.mean,
        "squeezeDeviation": np.sqrt(block.squeezes.variance),
    }
    if gates.space_variance is not None:
        figures["space"] = np.sqrt(gates.space_variance)
    return {name: pack.quantized(np.nan_to_num(values, posinf=0, neginf=0), 16) for name, values in figures.items()}


def _extremes(pack: PackedArrays, gates: Statistics) -> dict[str, Any]:
    """Pack the classes with the lowest and the highest means of each channel, for means that are not all stored."""
    seen = np.flatnonzero(gates.images)
    means, count = gates.means[seen], min(3, len(seen))
    # Only the ends are sorted: there may be thousands of classes.
    parted = np.argpartition(means, sorted({count - 1, len(seen) - count}), axis=0)
    low, high = parted[:count], parted[len(seen) - count :]
    low = np.take_along_axis(low, np.take_along_axis(means, low, axis=0).argsort(axis=0), axis=0)
    high = np.take_along_axis(high, np.take_along_axis(-means, high, axis=0).argsort(axis=0), axis=0)
    places = seen[np.concatenate([low, high])]
    values = np.take_along_axis(gates.means, places, axis=0)
    return {"classes": pack.exact(places.T, "u2"), "means": pack.quantized(values.T, 8)}


def _heat(pack: PackedArrays, gates: Statistics, level: DetailLevel, order: tuple[Counts, Counts]) -> dict[str, Any]:
    classes, channels = order
    cells = binned(gates.means[np.ix_(classes, channels)], *level.heat)
    return {
        "cells": pack.quantized(cells.T, 8),  # a row for each channel, quantized by itself
        "classes": pack.exact(classes, "u2"),
        "channels": pack.exact(channels, "u2"),
    }


def _histogram(pack: PackedArrays, gates: Statistics, bins: int) -> dict[str, Any]:
    """Pack the histogram of the block, and of each channel with fewer bins, relative to its highest bin."""
    counts: Counts = gates.histogram
    group = ceil(counts.shape[1] / bins)
    starts = np.arange(0, counts.shape[1], group)
    small = np.add.reduceat(counts, starts, axis=1)
    highest = small.max(1, initial=0)
    shares = small / np.maximum(1, highest)[:, None]
    return {
        "edges": gates.edges.tolist(),
        "total": counts.sum(0).tolist(),
        "group": group,
        "highest": (highest / np.maximum(1, small.sum(1))).tolist(),
        "channels": pack.exact(np.rint(shares * 255), "u1"),
    }


def _ends(pack: PackedArrays, recorded: NDArray[np.float32], count: int) -> dict[str, Any] | None:
    """Pack the sampled images with the smallest and the largest gates of each channel, extremes first."""
    if not len(recorded):
        return None
    order = np.argsort(recorded, axis=0, kind="stable")
    count = min(count, max(1, len(recorded) // 2))
    places = np.concatenate([order[:count], order[::-1][:count]])
    values = np.take_along_axis(recorded, places, axis=0)
    return {
        "images": pack.exact(places.T, "u1" if len(recorded) <= 256 else "u2"),
        "gates": pack.quantized(values.T, 8),
    }


def _hidden(pack: PackedArrays, hidden: HiddenUnits) -> dict[str, Any]:
    on: Floats = hidden.positive / max(1, hidden.calls)
    figures = {
        "on": on,
        "mean": hidden.outputs.mean,
        "deviation": np.sqrt(hidden.outputs.variance),
        "weight": hidden.weights,
    }
    return {name: pack.exact(values, "f4") for name, values in figures.items()}


def _cam(pack: PackedArrays, cam: GradCam) -> dict[str, Any]:
    maps = {name: pack.exact(np.rint(255 * values), "u1") for name, values in cam.maps.items()}
    return {"places": cam.places.tolist(), "maps": maps}


def _sample(pack: PackedArrays, sample: Sample) -> dict[str, Any]:
    header: dict[str, Any] = {"indices": sample.indices.tolist(), "labels": sample.labels.tolist(), "thumbnails": None}
    if sample.thumbnails is not None and len(sample.thumbnails):
        header["thumbnails"] = _contact_sheet(pack, sample.thumbnails)
    return header


def _contact_sheet(pack: PackedArrays, thumbnails: NDArray[np.uint8]) -> dict[str, Any]:
    """Pack all thumbnails as one JPEG."""
    from PIL import Image

    count, size = thumbnails.shape[:2]
    columns, cell = ceil(count**0.5), _CELL * ceil(size / _CELL)
    sheet = np.zeros((ceil(count / columns) * cell, columns * cell, 3), np.uint8)
    # Thumbnails are padded with their edge pixels.
    padded = np.pad(thumbnails, ((0, 0), (0, cell - size), (0, cell - size), (0, 0)), mode="edge")
    for place, thumbnail in enumerate(padded):
        top, left = place // columns * cell, place % columns * cell
        sheet[top : top + cell, left : left + cell] = thumbnail
    file = BytesIO()
    Image.fromarray(sheet).save(file, "JPEG", quality=82)
    return {"file": pack.bytes(file.getvalue()), "size": size, "cell": cell, "columns": columns}
