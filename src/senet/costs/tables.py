"""Costs of named networks: by stage, and alongside the paper's figures."""

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

__all__ = [
    "PaperComparison",
    "Stage",
    "build_on_meta",
    "compare_with_paper",
    "cost_by_stage",
    "image_size",
    "network_cost",
]


@dataclass(frozen=True)
class Stage:
    """The sum of the blocks of one stage.

    Attributes:
        stage: the paper's number, 1 being the stem; None for the head.
        module: the container of its blocks, such as "layer1"; or the first block and the last.
        units: the number of blocks with multiply-adds; in a residual network, of units.
        channels: of the last block's output.
        resolution: spatial axes of the last block's output.
        sites: the names of SE modules.
        plain: everything but SE.
        se: SE alone.
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
class PaperComparison:
    """A row of a table of the paper, and the count of its network.

    Attributes:
        entry: the row.
        cost: of the network; None if the catalogue lacks it.
        statistics: the number of running means and variances of its batch norms.
    """

    entry: Entry
    cost: Cost | None
    statistics: int

    @property
    def params_deviation(self) -> float | None:
        """Relative deviation of the parameters from the paper's; None if there is nothing to compare."""
        return None if self.cost is None else _deviation(self.cost.params, self.entry.params)

    @property
    def macs_deviation(self) -> float | None:
        """Relative deviation of the multiply-adds from the paper's; None if there is nothing to compare."""
        return None if self.cost is None else _deviation(self.cost.macs, self.entry.macs)

    @property
    def params_fit(self) -> bool:
        """Whether the parameters, rounded as in the paper, equal the paper's; True if there is nothing to compare."""
        if self.cost is None or self.entry.params is None:
            return True
        digits = (self.cost.params + self.statistics * self.entry.statistics) / self.entry.params_digit
        return floor(digits + 0.5 * (not self.entry.rounded_down)) == round(self.entry.params / self.entry.params_digit)


def network_cost(name: str, *, size: Size | None = None) -> Cost:
    """Count a named network, without its activation memory; it is built on the meta device, once in a process.

    Args:
        name: as for `senet.create_model`.
        size: side of the images in pixels, or height and width; the network's own unless given.

    Raises:
        ValueError: there is no such network, or it does not take such images.
    """
    return _count(name, network(plain_name(name)).size if size is None else size, ())[0]


def build_on_meta(name: str, **options: Any) -> nn.Module:
    """Build a network on the meta device, where tensors have no values and take no memory.

    Args:
        name: as for `senet.create_model`.
        options: of `senet.create_model`.

    Raises:
        TypeError: an option that `senet.create_model` does not have.
        ValueError: an invalid value of an option, or an unknown network.
    """
    with torch.device("meta"):
        return create_model(name, **options)


def image_size(model: nn.Module, size: SizeLike | None = None) -> tuple[int, ...]:
    """Return (C, H, W) of the images that a network declares, or of images of another size.

    Args:
        model: a network; (3, 224, 224) if it declares no size, see `senet.graph.example_inputs.declared_size`.
        size: side in pixels, or height and width, instead of the declared ones.
    """
    channels, height, width = declared_size(model) or (3, 224, 224)
    return (channels, height, width) if size is None else (channels, *size_pair(size))


def compare_with_paper(entries: Iterable[Entry]) -> Iterator[PaperComparison]:
    """Count the networks of rows of the paper's tables, and yield each with its row.

    Args:
        entries: the rows, from `senet.paper`.
    """
    known = set(list_models())
    for entry in entries:
        if entry.network not in known:
            yield PaperComparison(entry, None, 0)
            continue
        yield PaperComparison(entry, *_count(entry.network, entry.size, tuple(sorted(entry.options.items()))))


def cost_by_stage(cost: Cost) -> list[Stage]:
    """Sum a network's blocks by stage, in the network's order; the head comes last."""
    numbers = dict.fromkeys(block.stage for block in cost.blocks)
    stages = [number for number in numbers if number is not None] + [None] * (None in numbers)
    return [_stage(number, [block for block in cost.blocks if block.stage == number]) for number in stages]


def _stage(number: int | None, blocks: list[Block]) -> Stage:
    active = [block for block in blocks if block.plain.macs or block.se.macs] or blocks
    last = active[-1]
    return Stage(
        stage=number,
        module=_within(active),
        units=len(active),
        channels=last.channels,
        resolution=last.resolution,
        sites=tuple(name for block in blocks for name in block.sites),
        plain=Part.total(block.plain for block in blocks),
        se=Part.total(block.se for block in blocks),
    )


def _within(blocks: list[Block]) -> str:
    """Return the container of blocks, or the first of them and the last."""
    names = [block.name for block in blocks]
    containers = {name.rpartition(".")[0] for name in names}
    if len(containers) == 1 and "" not in containers:
        return containers.pop()
    return " to ".join(dict.fromkeys(names[:1] + names[-1:]))


@cache
def _count(name: str, size: Size, options: tuple[tuple[str, Any], ...]) -> tuple[Cost, int]:
    """Return a named network's cost, and the number of running statistics of its batch norms."""
    model = build_on_meta(name, **dict(options))
    return cost(model, image_size(model, size), activations=False), _statistics(model)


def _statistics(model: nn.Module) -> int:
    running = (buffer for name, buffer in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    return sum(buffer.numel() for buffer in running)


def _deviation(count: int, figure: float | None) -> float | None:
    return None if figure is None else count / figure - 1
