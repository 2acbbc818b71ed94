"""Which channels and classes a picture shows where there is no room for all of them."""

from collections.abc import Sequence

import numpy as np

from senet.gates.recording.record import BlockGates, Gates
from senet.gates.recording.statistics import Counts
from senet.utils.errors import unknown_name

__all__ = ["example_blocks", "example_classes", "sample_channels", "seen_classes"]

# Section 7.2 of the paper: figure 7 has the first two.
_PAPER = ("goldfish", "plane", "pug", "cliff")


def sample_channels(channels: int, count: int | None, seed: int = 0) -> Counts:
    """Some channels of a block, each as likely as any other, as in the paper's figure 6.

    Args:
        channels: C.
        count: how many; None for all.
        seed: of the choice; the same block has the same channels each time.

    Returns:
        (min(C, count),), rising.

    Raises:
        ValueError: fewer than 1 is asked for.
    """
    if count is not None and count < 1:
        raise ValueError(f"channels must be 1 or more, got {count}; None shows all")
    if count is None or count >= channels:
        return np.arange(channels)
    return np.sort(np.random.default_rng(seed).choice(channels, count, replace=False))


def seen_classes(gates: Gates) -> Counts:
    """Places of the classes of which there was an image, rising: the others have no mean."""
    return np.flatnonzero(gates.blocks[0].gates.images)


def example_classes(gates: Gates, classes: Sequence[str] | None = None, *, count: int = 4) -> list[int]:
    """Classes to show beside the mean over all of them.

    Args:
        gates: of the network.
        classes: their names; None for the paper's four where the data have them, and classes evenly spread otherwise.
        count: how many are chosen where none are named.

    Returns:
        Their places.

    Raises:
        ValueError: there is no such class, or none of its images was seen.
    """
    seen = seen_classes(gates)
    if classes is not None:
        return [_place(gates, name) for name in classes]
    # ImageNet's names of a class are several, with commas between: "pug, pug-dog".
    first = {gates.classes[place].split(",")[0].strip().lower(): int(place) for place in reversed(seen)}
    chosen = [first[name] for name in _PAPER if name in first][:count]
    rest = [int(place) for place in seen if place not in chosen]
    missing = min(count - len(chosen), len(rest))
    # The middle of each of as many equal parts.
    return chosen + [rest[(2 * part + 1) * len(rest) // (2 * missing)] for part in range(missing)]


def example_blocks(gates: Gates, blocks: Sequence[str] | None = None) -> list[BlockGates]:
    """Blocks to draw where not all of them are: as in the paper the last of each stage, and all of the last stage.

    Of ResNet-50 that is SE_2_3, SE_3_4, SE_4_6, SE_5_1, SE_5_2 and SE_5_3.

    Args:
        gates: of the network.
        blocks: their names or labels; None for the paper's choice, and all where a stage is not known.

    Raises:
        ValueError: there is no such block, or none is named.
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
        raise ValueError("no block is named; name one or more, or give None for the paper's choice")
    known = {key: block for block in gates.blocks for key in (block.name, block.label)}
    for name in blocks:
        if name not in known:
            raise ValueError(unknown_name("block", name, dict.fromkeys(block.label for block in gates.blocks)))
    return [known[name] for name in blocks]


def _place(gates: Gates, name: str) -> int:
    if name not in gates.classes:
        raise ValueError(unknown_name("class", name, gates.classes))
    place = gates.classes.index(name)
    if not gates.blocks[0].gates.images[place]:
        raise ValueError(f"no image of the class {name!r} was seen; choose another, or record data that have it")
    return place
