"""What goes into the page: of a network, of its blocks, as the page's scripts read it."""

from io import BytesIO
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from senet.gates.diagnosis.analysis import eta_squared
from senet.gates.recording.record import BlockGates, Gates, HiddenUnits, Sample
from senet.gates.recording.statistics import Counts, Floats, Statistics
from senet.gates.report.clustering import binned, cluster_order
from senet.gates.report.levels import Level
from senet.gates.report.packing import Pack
from senet.gates.report.selection import example_classes, sample_channels, seen_classes

if TYPE_CHECKING:
    from senet.gates.diagnosis.diagnosis import BlockDiagnosis, Diagnosis

__all__ = ["Orders", "orders", "pack_page"]

# Of a block: its classes that were seen, and its channels, so that what is alike stands together.
Orders = list[tuple[Counts, Counts]]
_PAPER_CHANNELS = 50  # of figure 6
_CELL = 16  # pixels: a picture's blocks; a thumbnail that fills whole ones does not run into its neighbour


def orders(gates: Gates) -> Orders:
    """Orders of classes and channels for the heat maps, one pair for each block; the same for every level."""
    seen = seen_classes(gates)
    return [
        (seen[cluster_order(block.gates.means[seen])], cluster_order(block.gates.means[seen].T))
        for block in gates.blocks
    ]


def pack_page(gates: Gates, diagnosis: "Diagnosis", meanings: dict[str, str], level: Level, order: Orders) -> str:
    """All that the page shows, as text for it.

    Args:
        gates: of the network.
        diagnosis: of the same.
        meanings: of verdicts, a line each.
        level: how much is kept.
        order: of classes and channels.
    """
    pack = Pack()
    seen = seen_classes(gates)
    examples = example_classes(gates)
    kept = _spread(seen, level.classes, examples)
    wide = _spread(kept, level.wide, examples)
    blocks = [
        _block(pack, block, verdict, level, pair, kept, wide)
        for block, verdict, pair in zip(gates.blocks, diagnosis.blocks, order, strict=True)
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
        "advice": list(diagnosis.advice),
        "sample": _sample(pack, gates.sample),
        "blocks": blocks,
    }
    return pack.text(header)


def _spread(places: Counts, count: int | None, first: list[int]) -> Counts:
    """Some of the places, evenly spread, those that are shown first among them; rising."""
    if count is None or count >= len(places):
        return places
    rest = np.setdiff1d(places, first)
    more = max(0, count - len(first))
    begin = np.array(first[:count], np.int64)
    return np.sort(np.concatenate([begin, rest[(2 * np.arange(more) + 1) * len(rest) // (2 * max(1, more))]]))


def _block(
    pack: Pack,
    block: BlockGates,
    verdict: "BlockDiagnosis",
    level: Level,
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
        "numbers": _numbers(pack, block),
        "fifty": sample_channels(block.channels, min(_PAPER_CHANNELS, level.channels)).tolist(),
        "sampled": sampled.tolist(),
        "means": pack.rounded(gates.means[np.ix_(kept, sampled)].T, level.bits),
        "deviations": pack.rounded(deviations[np.ix_(kept, sampled)].T, 8),
        "wideMeans": pack.rounded(gates.means[wide].T, 8),
        "wideDeviations": pack.rounded(deviations[wide].T, 8),
        "extremes": None if everything else _extremes(pack, gates),
        "heat": _heat(pack, gates, level, order),
        "histogram": _histogram(pack, gates, level.bins),
        "ends": _ends(pack, block.sample_gates, level.ends),
        "recorded": {
            "gates": pack.rounded(block.sample_gates[:, sampled].T, 8),
            "squeezes": pack.rounded(block.sample_squeezes[:, sampled].T, 8),
        },
        "hidden": None if block.hidden is None else _hidden(pack, block.hidden),
    }


def _verdict(verdict: "BlockDiagnosis") -> dict[str, Any]:
    ablations = [
        {
            "by": one.by,
            "logits": _finite(one.logits),
            **{key: [_finite(part) for part in (span.value, span.low, span.high)] for key, span in spans.items()},
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
    """JSON has no infinity."""
    return None if value is None or not np.isfinite(value) else float(value)


def _range(block: BlockGates) -> list[float]:
    """That the axis of gates spans: what a sigmoid can give; of another gate, what it gave."""
    if "sigmoid" in block.gate.lower() and block.gain > 0:
        return [0.0, float(block.gain)]
    low, high = float(block.gates.minimum.min()), float(block.gates.maximum.max())
    if not np.isfinite([low, high]).all() or low == high:
        return [0.0, 1.0] if not np.isfinite(low) else [low - 0.5, high + 0.5]
    return [min(0.0, low), high]


def _numbers(pack: Pack, block: BlockGates) -> dict[str, Any]:
    """Figures of each channel."""
    gates, images = block.gates, max(1, block.gates.total)
    figures = {
        "mean": gates.mean,
        "deviation": np.sqrt(gates.variance),
        "within": np.sqrt(gates.within / images),
        "eta": np.nan_to_num(eta_squared(gates)),  # 0 where nothing varies
        "minimum": gates.minimum,
        "maximum": gates.maximum,
        "squeeze": block.squeezes.mean,
        "squeezeDeviation": np.sqrt(block.squeezes.variance),
    }
    if gates.space_variance is not None:
        figures["space"] = np.sqrt(gates.space_variance)
    return {name: pack.rounded(np.nan_to_num(values, posinf=0, neginf=0), 16) for name, values in figures.items()}


def _extremes(pack: Pack, gates: Statistics) -> dict[str, Any]:
    """The classes at both ends of each channel, and their means: for channels whose means are not all kept."""
    seen = np.flatnonzero(gates.images)
    means, count = gates.means[seen], min(3, len(seen))
    # The ends alone are put in order: there may be thousands of classes between them.
    parted = np.argpartition(means, sorted({count - 1, len(seen) - count}), axis=0)
    low, high = parted[:count], parted[len(seen) - count :]
    low = np.take_along_axis(low, np.take_along_axis(means, low, axis=0).argsort(axis=0), axis=0)
    high = np.take_along_axis(high, np.take_along_axis(-means, high, axis=0).argsort(axis=0), axis=0)
    places = seen[np.concatenate([low, high])]
    values = np.take_along_axis(gates.means, places, axis=0)
    return {"classes": pack.whole(places.T, "u2"), "means": pack.rounded(values.T, 8)}


def _heat(pack: Pack, gates: Statistics, level: Level, order: tuple[Counts, Counts]) -> dict[str, Any]:
    classes, channels = order
    cells = binned(gates.means[np.ix_(classes, channels)], *level.heat)
    return {
        "cells": pack.rounded(cells.T, 8),  # a channel's in a row: its own steps
        "classes": pack.whole(classes, "u2"),
        "channels": pack.whole(channels, "u2"),
    }


def _histogram(pack: Pack, gates: Statistics, bins: int) -> dict[str, Any]:
    """Of the block, as recorded; of each channel, in fewer bins, its highest as one."""
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
        "channels": pack.whole(np.rint(shares * 255), "u1"),
    }


def _ends(pack: Pack, recorded: NDArray[np.float32], count: int) -> dict[str, Any] | None:
    """Recorded images with the least and the largest gate of each channel, from the outside in."""
    if not len(recorded):
        return None
    order = np.argsort(recorded, axis=0, kind="stable")
    count = min(count, max(1, len(recorded) // 2))
    places = np.concatenate([order[:count], order[::-1][:count]])
    values = np.take_along_axis(recorded, places, axis=0)
    return {"images": pack.whole(places.T, "u1" if len(recorded) <= 256 else "u2"), "gates": pack.rounded(values.T, 8)}


def _hidden(pack: Pack, hidden: HiddenUnits) -> dict[str, Any]:
    on: Floats = hidden.positive / max(1, hidden.calls)
    figures = {
        "on": on,
        "mean": hidden.outputs.mean,
        "deviation": np.sqrt(hidden.outputs.variance),
        "weight": hidden.weights,
    }
    return {name: pack.whole(values, "f4") for name, values in figures.items()}


def _sample(pack: Pack, sample: Sample) -> dict[str, Any]:
    header: dict[str, Any] = {"indices": sample.indices.tolist(), "labels": sample.labels.tolist(), "thumbnails": None}
    if sample.thumbnails is not None and len(sample.thumbnails):
        header["thumbnails"] = _contact_sheet(pack, sample.thumbnails)
    return header


def _contact_sheet(pack: Pack, thumbnails: NDArray[np.uint8]) -> dict[str, Any]:
    """All thumbnails in one picture, in rows."""
    from PIL import Image

    count, size = thumbnails.shape[:2]
    columns, cell = ceil(count**0.5), _CELL * ceil(size / _CELL)
    sheet = np.zeros((ceil(count / columns) * cell, columns * cell, 3), np.uint8)
    # Past its edge a thumbnail goes on as it ends.
    padded = np.pad(thumbnails, ((0, 0), (0, cell - size), (0, cell - size), (0, 0)), mode="edge")
    for place, thumbnail in enumerate(padded):
        top, left = place // columns * cell, place % columns * cell
        sheet[top : top + cell, left : left + cell] = thumbnail
    file = BytesIO()
    Image.fromarray(sheet).save(file, "JPEG", quality=82)
    return {"file": pack.bytes(file.getvalue()), "size": size, "cell": cell, "columns": columns}
