"""Recordings of gates that are all in memory, for tests: by numpy alone."""

import numpy as np
from numpy.typing import NDArray

from senet.gates.recording.record import BlockGates, Gates, HiddenUnits, Sample
from senet.gates.recording.statistics import Statistics


def statistics_of(
    values: NDArray[np.float64], labels: NDArray[np.int64], classes: int, edges: NDArray[np.float64] | None = None
) -> Statistics:
    """Of (M, C) values and (M,) classes."""
    edges = np.linspace(0, 1, 101) if edges is None else edges
    found = Statistics.empty(classes, values.shape[1], edges)
    for k in range(classes):
        own = values[labels == k]
        found.images[k] = len(own)
        if len(own):
            found.means[k], found.squares[k] = own.mean(0), np.square(own - own.mean(0)).sum(0)
    found.minimum, found.maximum = values.min(0), values.max(0)
    inside = values.clip(edges[0], edges[-1])
    found.histogram = np.stack([np.histogram(column, edges)[0] for column in inside.T])
    return found


def hidden_of(inputs: NDArray[np.float64], weights: NDArray[np.float64]) -> HiddenUnits:
    """Of (M, H) inputs of a ReLU and (H,) lengths of weights."""
    outputs = statistics_of(inputs.clip(0), np.zeros(len(inputs), np.int64), 1)
    return HiddenUnits((inputs > 0).sum(0), len(inputs), outputs, weights)


def block_of(
    values: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    classes: int | None = None,
    name: str = "layer1.0.se",
    stage: int | None = 2,
    gate: str = "Sigmoid",
    gain: float = 1.0,
    squeeze: str = "avg",
    activation: str | None = "ReLU",
    hidden: HiddenUnits | None = None,
    sample: int = 256,
) -> BlockGates:
    """A block with these gates, (M, C)."""
    classes = int(labels.max()) + 1 if classes is None else classes
    low, high = min(0.0, float(values.min())), max(abs(gain), float(values.max()))
    gates = statistics_of(values, labels, classes, np.linspace(low, high, 101))
    some = values[:: max(1, len(values) // sample)].astype(np.float32)
    label = name if stage is None else f"SE_{stage}_1"
    return BlockGates(
        *(name, label, stage, 0.0, "senet.nn.block.SqueezeExcitation", gate, gain, squeeze),
        *(activation if hidden else None, gates, gates, hidden, some, some),
    )


def gates_of(*blocks: BlockGates) -> Gates:
    """A recording of these blocks."""
    classes = [f"class {k}" for k in range(len(blocks[0].gates.images))]
    sample = Sample(np.zeros(0, np.int64), np.zeros(0, np.int64), None)
    return Gates("network", "data", classes, list(blocks), sample, True, {})
