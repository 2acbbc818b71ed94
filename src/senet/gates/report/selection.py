"""Select the channels, classes and blocks of a chart that has no room for all."""

from collections.abc import Sequence

import numpy as np

from senet.gates.recording.record import BlockGates, Gates
from senet.gates.recording.statistics import Counts
from senet.utils.errors import unknown_name

__all__ = ["example_blocks", "example_classes", "sample_channels", "seen_classes"]

# Section 7.2 of the paper; figure 7 shows the first two.
_PAPER = ("goldfish", "plane", "pug", "cliff")


def sample_channels(channels: int, count: int | None, seed: int = 0) -> Counts:
    """Sample channels of a block uniformly, as in the paper's figure 6.

    Args:
        channels: C.
        count: number of channels; None for all.
        seed: seed of the sample.

    Returns:
        (min(C, count),), ascending.

    Raises:
        ValueError: `count` is below 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"channels must be 1 or more, got {count}; None shows all")
    if count is None or count >= channels:
        return np.arange(channels)
    return np.sort(np.random.default_rng(seed).choice(channels, count, replace=False))


def seen_classes(gates: Gates) -> Counts:
    """Return the ascending indices of classes with images; the other classes have no mean."""
    return np.flatnonzero(gates.blocks[0].gates.images)


def example_classes(gates: Gates, classes: Sequence[str] | None = None, *, count: int = 4) -> list[int]:
    """Select the classes that a chart shows in addition to the mean over all classes.

    Args:
        gates: the recording.
        classes: names of the classes; None for the paper's four if the data has them, and evenly spaced classes
            otherwise.
        count: number of classes if `classes` is None.

    Returns:
        Indices of the classes.

    Raises:
        ValueError: a class is unknown or has no images.
    """
    seen = seen_classes(gates)
    if classes is not None:
        return [_class_index(gates, name) for name in classes]
    # ImageNet classes have several names, separated by commas: "pug, pug-dog".
    first = {gates.classes[index].split(",")[0].strip().lower(): int(index) for index in reversed(seen)}
    chosen = [first[name] for name in _PAPER if name in first][:count]
    rest = [int(index) for index in seen if index not in chosen]
    missing = min(count - len(chosen), len(rest))
    # The centres of equal parts.
    return chosen + [rest[(2 * part + 1) * len(rest) // (2 * missing)] for part in range(missing)]


def example_blocks(gates: Gates, blocks: Sequence[str] | None = None) -> list[BlockGates]:
    """Select blocks as the paper does: the last block of each stage, and all blocks of the last stage.

    For ResNet-50 these are SE_2_3, SE_3_4, SE_4_6, SE_5_1, SE_5_2 and SE_5_3.

    Args:
        gates: the recording.
        blocks: names or labels of the blocks; None for the paper's selection, or all blocks if a stage is unknown.

    Raises:
        ValueError: a block is unknown, or `blocks` is empty.
    """
    if blocks is None:
        stages = [block.stage for block in gates.blocks]
        if None in stages:
            return gates.blocks
        following = [*stages[1:], None]
        return [
            block
            for block, after in zip(gates.blocks, following, strict=True)
            if block.stage != after or block.stage == stages[-1]
        ]
    if not blocks:
        raise ValueError("blocks is empty; give one or more names, or None for the paper's selection")
    known = {key: block for block in gates.blocks for key in (block.name, block.label)}
    for name in blocks:
        if name not in known:
            raise ValueError(unknown_name("block", name, dict.fromkeys(block.label for block in gates.blocks)))
    return [known[name] for name in blocks]


def _class_index(gates: Gates, name: str) -> int:
    if name not in gates.classes:
        raise ValueError(unknown_name("class", name, gates.classes))
    index = gates.classes.index(name)
    if not gates.blocks[0].gates.images[index]:
        raise ValueError(f"the class {name!r} has no recorded images; choose another class, or record data with it")
    return index
