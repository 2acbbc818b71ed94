"""Define what a recording holds: `Gates`, with one `BlockGates` for each SE block."""

from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.gates.recording.arrays_file import write_arrays
from senet.gates.recording.statistics import Counts, Floats, Statistics

__all__ = ["FORMAT", "BlockGates", "Gates", "HiddenUnits", "Sample"]

# Of the file, see `senet.gates.recording.record_file`: 1 is an .npz archive of senet 0.1, 2 a safetensors file.
FORMAT = 2


@dataclass
class HiddenUnits:
    """Statistics of the H units between the two layers of an excitation.

    Attributes:
        positive: (H,), the number of activation inputs above 0. For ReLU, how often the unit was active.
        calls: the number of inputs of each unit: images, times positions for the squeeze "none", or times windows.
        outputs: statistics of the activation's outputs over all images, as one class.
        weights: (H,), the norm of each unit's column in the second layer's weight. 0 means that no gate reads the unit.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> hidden = gates.blocks[-1].hidden
        >>> share = hidden.positive / hidden.calls  # of images for which each unit is active
        >>> share.shape
        (4,)
    """

    positive: Counts
    calls: int
    outputs: Statistics
    weights: Floats


@dataclass
class BlockGates:
    """The recorded gates of one SE block.

    Attributes:
        name: name of the SE module, as in `named_modules`.
        label: the paper's name, such as "SE_4_6" (stage, position in the stage from 1). `name` if the stage is unknown.
        stage: the paper's stage number; None if unknown.
        depth: relative depth, from 0 for the first block to 1 for the last; 0 if there is only one.
        kind: the module's class with its library, as `SEUnit.kind`.
        gate: class name of the gate's module, such as "Sigmoid".
        gain: the factor of the gate.
        squeeze: "avg", "max", "none" or "avg+max".
        activation: class name of the activation between the layers; None if there is one layer.
        gates: statistics of the gates, (C,) for each image, gain included.
        squeezes: statistics of the squeezes, (C,) for each image.
        hidden: statistics of the hidden units; None if there is one layer.
        sample_gates, sample_squeezes: (S, C), float32, of the images in `Gates.sample`. Means over space for the
            squeeze "none", and over windows.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> block = gates.blocks[-1]
        >>> block.name, block.stage, block.channels, block.hidden_channels
        ('layer3.2.bn2.se', 4, 64, 4)
    """

    name: str
    label: str
    stage: int | None
    depth: float
    kind: str
    gate: str
    gain: float
    squeeze: str
    activation: str | None
    gates: Statistics
    squeezes: Statistics
    hidden: HiddenUnits | None
    sample_gates: NDArray[np.float32]
    sample_squeezes: NDArray[np.float32]

    @property
    def channels(self) -> int:
        """Return C."""
        return self.gates.channels

    @property
    def hidden_channels(self) -> int | None:
        """Return H, or None if there is one layer."""
        return None if self.hidden is None else len(self.hidden.positive)


@dataclass
class Sample:
    """S randomly sampled images whose gates are stored one by one. The sample depends only on the seed.

    Attributes:
        indices: (S,), ascending indices of the images in the data.
        labels: (S,), their classes.
        thumbnails: (S, T, T, 3), 8 bits; None if none were requested or the images are neither grey nor RGB.
    """

    indices: Counts
    labels: Counts
    thumbnails: NDArray[np.uint8] | None


@dataclass
class Gates:
    """A recording of a network's gates on a data set, made by `senet.record_gates`.

    Attributes:
        network: name of the network.
        data: spec of the data, or the type of the loader.
        classes: K names.
        blocks: the SE blocks in execution order.
        sample: the images whose gates are stored one by one.
        complete: whether all of the data was recorded.
        state: what resuming and merging need, see `record_gates`.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> [block.label for block in gates.blocks[:3]]
        ['SE_2_1', 'SE_2_2', 'SE_2_3']
        >>> gates.save("photos.gates")
    """

    network: str
    data: str
    classes: list[str]
    blocks: list[BlockGates]
    sample: Sample
    complete: bool
    state: dict[str, Any]

    @property
    def images(self) -> int:
        """Return the number of recorded images."""
        return self.blocks[0].gates.total

    def save(self, path: str | PathLike[str]) -> None:
        """Write the recording to one file, atomically. `senet.load_gates` reads it.

        Args:
            path: the file, usually `.safetensors`; `senet.gates.recording.record_file` describes its keys.

        Raises:
            OSError: the file cannot be written; an existing file is unchanged.
        """
        about = {name: getattr(self, name) for name in ("network", "data", "classes", "complete", "state")}
        about |= {"format": FORMAT, "blocks": [_values(block) for block in self.blocks]}
        arrays = _arrays(self.sample, "sample")
        for index, block in enumerate(self.blocks):
            arrays |= _arrays(block, str(index))
        write_arrays(path, about, arrays)


def _values(block: BlockGates) -> dict[str, Any]:
    """Return the fields of a block that are not arrays, and the `calls` of its hidden units."""
    values = {field.name: getattr(block, field.name) for field in fields(block)}
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float | None)}
    return plain | {"calls": None if block.hidden is None else block.hidden.calls}


def _arrays(part: Any, key: str) -> dict[str, NDArray[Any]]:
    """Return the arrays in the fields of a dataclass and of dataclasses in it, with keys such as "0/gates/means"."""
    found: dict[str, NDArray[Any]] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, np.ndarray):
            found[f"{key}/{field.name}"] = value
        elif isinstance(value, Statistics | HiddenUnits):
            found |= _arrays(value, f"{key}/{field.name}")
    return found
