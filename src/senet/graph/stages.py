"""Stages by the paper's numbers: the stem is 1, and the first stage of blocks is 2.

A stage is log2 of the total stride from the image to a map. Residual units are counted instead, as a stage of them may
have no stride: each container of units is one.
"""

from collections.abc import Iterable, Mapping
from math import log2

__all__ = ["UnitStages", "block_stages", "octaves", "stage_of_stride"]


def octaves(image: tuple[int, ...], spatial: tuple[int, ...]) -> float | None:
    """Return log2 of the total stride from an image to a map: of the geometric mean over their spatial axes.

    Args:
        image: the spatial axes of the image.
        spatial: the spatial axes of the map.

    Returns:
        None if they have different numbers of axes, or none.
    """
    if not image or len(image) != len(spatial) or 0 in (*image, *spatial):
        return None
    return sum(max(0.0, log2(large / small)) for large, small in zip(image, spatial, strict=True)) / len(image)


def stage_of_stride(octaves: float, first_stage: int = 0) -> int:
    """Return the stage of a map.

    Args:
        octaves: log2 of the total stride.
        first_stage: the stage's number where the stride is 1.
    """
    return first_stage + round(octaves)


class UnitStages:
    """Number the stages of residual units, in the order of the network's modules.

    A stage is one container of units; its number counts the containers under the same parent, from 2.
    """

    def __init__(self) -> None:
        self._containers: dict[str, list[str]] = {}

    def next(self, unit: str) -> int:
        """Return the stage of the next unit.

        Args:
            unit: its name, as in `named_modules`.
        """
        container = unit.rpartition(".")[0]
        siblings = self._containers.setdefault(container.rpartition(".")[0], [])
        if container not in siblings:
            siblings.append(container)
        return 2 + siblings.index(container)


def block_stages(
    blocks: Iterable[tuple[str, tuple[int, ...], int]], image: tuple[int, ...], units: Mapping[str, int | None]
) -> list[int | None]:
    """Return the stage of each block of a network: that of its residual units, and log2 of the total stride elsewhere.

    A network whose first map is as large as its image has one more, so that the stem is 1 everywhere. A block that
    multiplies nothing, such as a pool, has the stage of the block before it. A block without spatial axes, or after
    global pooling, has none.

    Args:
        blocks: names, spatial axes of outputs and multiply-adds, in the order in which the blocks run.
        image: the spatial axes of the image.
        units: the stages of residual units, by name.
    """
    found: list[int | None] = []
    known: dict[tuple[int, ...], int] = {}
    stem: int | None = None
    for name, spatial, macs in blocks:
        stage = next((n for unit, n in units.items() if unit == name or unit.startswith(f"{name}.")), None)
        if stage is not None:
            known[spatial] = stage
        elif not spatial or (max(spatial) == 1 and max(image, default=1) > 1):
            pass
        elif found and found[-1] is not None and not macs:
            stage = found[-1]
        else:
            stride = stage_of_stride(octaves(image, spatial) or 0)
            stem = stride if stem is None else stem
            # After a unit, a map with the size of its output has its stage.
            stage = known.get(spatial, stride + (stem == 0))
        found.append(stage)
    return found
