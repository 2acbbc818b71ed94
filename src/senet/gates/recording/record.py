"""What was recorded of a network's gates: `Gates`, one `BlockGates` for each SE block."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.gates.recording.statistics import Counts, Floats, Statistics

__all__ = ["BlockGates", "Gates", "HiddenUnits", "Sample"]


@dataclass
class HiddenUnits:
    """The H units between the two layers of an excitation, over images.

    Attributes:
        positive: (H,), how many inputs of the activation were above 0; for ReLU, how often the unit was on.
        calls: how many inputs each unit had: images, times positions for the squeeze "none".
        outputs: of the activation, over images of all classes as one.
        weights: (H,), length of a unit's column in the second layer's weight; 0 is a unit that nothing reads.
    """

    positive: Counts
    calls: int
    outputs: Statistics
    weights: Floats


@dataclass
class BlockGates:
    """One SE block.

    Attributes:
        name: of the SE module, as in `named_modules`.
        label: the paper's way to call it, "SE_4_6": stage, and place in the stage from 1; the name where stages are not
            known.
        stage: the paper's number; None where it is not known.
        depth: place in the network, from 0 for the first to 1 for the last block; 0 where there is one.
        kind: class of the module with its library, as `SEUnit.kind`.
        gate: class name of the gate's module, such as "Sigmoid".
        gain: what multiplies it.
        squeeze: "avg", "max", "none" or "avg+max".
        activation: class name of the activation between the layers; None where there is one layer.
        gates: (C,) an image, gain included.
        squeezes: (C,) an image.
        hidden: None where there is one layer.
        sample_gates, sample_squeezes: (S, C), float32, of the images in `Gates.sample`; means over space for the
            squeeze "none".
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
        """C."""
        return self.gates.channels

    @property
    def hidden_channels(self) -> int | None:
        """H; None where there is one layer."""
        return None if self.hidden is None else len(self.hidden.positive)


@dataclass
class Sample:
    """S images of which gates are kept one by one: a random choice that depends on the seed alone.

    Attributes:
        indices: (S,), places of the images in the data, rising.
        labels: (S,), their classes.
        thumbnails: (S, T, T, 3), 8 bits; None where none were asked for or the images have no colours to show.
    """

    indices: Counts
    labels: Counts
    thumbnails: NDArray[np.uint8] | None


@dataclass
class Gates:
    """What the gates of a network did on a data set, as `senet.record_gates` saw it.

    Attributes:
        network: what the network is called.
        data: the spec of the data, or what kind of batches they were.
        classes: K names.
        blocks: in the order in which they run.
        sample: the images that are kept one by one.
        complete: whether all of the data was seen.
        state: what a recording needs in order to go on or to merge; see `record_gates`.
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
        """Images that were seen."""
        return self.blocks[0].gates.total

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to one file, whole or not at all; see `senet.gates.recording.record_file` for what is in it.

        Args:
            path: of the file; "gates.npz" by custom.

        Raises:
            OSError: it cannot be written; what stood there is as it was.
        """
        from senet.gates.recording.record_file import save_gates  # it knows this class

        save_gates(self, path)
