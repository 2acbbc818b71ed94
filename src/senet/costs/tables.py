"""Costs of named networks: by stage, and beside the paper's figures."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from math import floor
from typing import Any

import torch
from torch import nn

from senet.costs.cost import Block, Cost, Part, cost
from senet.graph.example_inputs import declared_size
from senet.models import create_model, list_models, network, plain_name
from senet.paper import Entry
from senet.utils.sizes import Size, SizeLike, size_pair

__all__ = ["Compared", "Stage", "beside_paper", "image_size", "network_cost", "stages_of", "without_memory"]


@dataclass(frozen=True)
class Stage:
    """The blocks of one stage, together.

    Attributes:
        stage: the paper's number, 1 being the stem; None for the head.
        module: what its blocks are in, such as "layer1"; or the first of these and the last.
        units: blocks that multiply anything; of a residual network, its units.
        channels: of the last block's output.
        resolution: spatial axes of that.
        sites: the names of SE modules.
        plain: what is not SE.
        se: what is.
    """

    stage: int | None
    module: str
    units: int
    channels: int | None
    resolution: tuple[int, ...]
    sites: tuple[str, ...]
    plain: Part
    se: Part


@dataclass(frozen=True)
class Compared:
    """A line of the paper, and the network that it is of, counted.

    Attributes:
        entry: the line.
        cost: of the network; None where the catalogue has none.
        statistics: running means and variances of its batch norms.
    """

    entry: Entry
    cost: Cost | None
    statistics: int

    @property
    def params_deviation(self) -> float | None:
        """Of the count from the paper's parameters, as a part of these; None where there is nothing to compare."""
        return None if self.cost is None else _deviation(self.cost.params, self.entry.params)

    @property
    def macs_deviation(self) -> float | None:
        """Of the count from the paper's multiply-adds, as a part of these; None where there is nothing to compare."""
        return None if self.cost is None else _deviation(self.cost.macs, self.entry.macs)

    @property
    def params_fit(self) -> bool:
        """Whether the count, rounded as the paper does, is the paper's figure; or there is nothing to compare."""
        if self.cost is None or self.entry.params is None:
            return True
        digits = (self.cost.params + self.statistics * self.entry.statistics) / self.entry.params_digit
        return floor(digits + 0.5 * (not self.entry.rounded_down)) == round(self.entry.params / self.entry.params_digit)


def network_cost(name: str, *, size: Size | None = None) -> Cost:
    """The cost of a named network, without its activations; it is built without memory, and once in a process.

    Args:
        name: as for `senet.create_model`.
        size: pixels of a side of the images, or their height and width; those that the network was made for unless
            given.

    Raises:
        ValueError: there is no such network, or it cannot take such images.
    """
    return _count(name, network(plain_name(name)).size if size is None else size, ())[0]


def without_memory(name: str, **options: Any) -> nn.Module:
    """Build a network on the meta device, where nothing has values.

    Args:
        name: as for `senet.create_model`.
        options: for the same.

    Raises:
        TypeError: an option that `senet.create_model` does not have.
        ValueError: whatever else it refuses.
    """
    with torch.device("meta"):
        return create_model(name, **options)


def image_size(model: nn.Module, size: SizeLike | None = None) -> tuple[int, ...]:
    """(C, H, W) of the images that a network was made for, or of images of another size.

    Args:
        model: a network with `pretrained_cfg`; any other is taken to be made for (3, 224, 224).
        size: pixels of a side, or height and width, instead.
    """
    channels, height, width = declared_size(model) or (3, 224, 224)
    return (channels, height, width) if size is None else (channels, *size_pair(size))


def beside_paper(entries: Iterable[Entry]) -> Iterator[Compared]:
    """Count the networks of some of the paper's lines, one after the other.

    Args:
        entries: from `senet.paper`.
    """
    known = set(list_models())
    for entry in entries:
        if entry.network not in known:
            yield Compared(entry, None, 0)
            continue
        yield Compared(entry, *_count(entry.network, entry.size, tuple(sorted(entry.options.items()))))


def stages_of(cost: Cost) -> list[Stage]:
    """A network's blocks, those of each stage together, in the network's order; the head comes last."""
    numbers = dict.fromkeys(block.stage for block in cost.blocks)
    stages = [number for number in numbers if number is not None] + [None] * (None in numbers)
    return [_stage(number, [block for block in cost.blocks if block.stage == number]) for number in stages]


def _stage(number: int | None, blocks: list[Block]) -> Stage:
    active = [block for block in blocks if block.plain.macs or block.se.macs] or blocks
    last = active[-1]
    return Stage(
        number,
        _within(active),
        len(active),
        last.channels,
        last.resolution,
        tuple(name for block in blocks for name in block.sites),
        Part.total(block.plain for block in blocks),
        Part.total(block.se for block in blocks),
    )


def _within(blocks: list[Block]) -> str:
    """The module that blocks stand in, or the first of them and the last."""
    names = [block.name for block in blocks]
    containers = {name.rpartition(".")[0] for name in names}
    if len(containers) == 1 and "" not in containers:
        return containers.pop()
    return " to ".join(dict.fromkeys(names[:1] + names[-1:]))


@cache
def _count(name: str, size: Size, options: tuple[tuple[str, Any], ...]) -> tuple[Cost, int]:
    """A named network's cost, and how many running statistics its batch norms have: the same whenever it is asked."""
    model = without_memory(name, **dict(options))
    return cost(model, image_size(model, size), activations=False), _statistics(model)


def _statistics(model: nn.Module) -> int:
    running = (buffer for name, buffer in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    return sum(buffer.numel() for buffer in running)


def _deviation(count: int, figure: float | None) -> float | None:
    return None if figure is None else count / figure - 1
