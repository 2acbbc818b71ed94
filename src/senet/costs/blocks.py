"""Divide a traced network into blocks, and sum what it computes by block, with SE separate."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from senet.graph.counts import count
from senet.graph.operations import Call, Trace, Value
from senet.graph.se_modules import find_se
from senet.graph.stages import block_stages
from senet.insertion.sites import table_sites

__all__ = ["Block", "Part", "divide"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Part:
    """The cost of one part, such as SE, of a network or of one of its blocks.

    Attributes:
        params: parameters, each once.
        macs: multiply-adds of convolutions, linear layers and matrix products, for one image.
        other: elements that all other operations write for one image, such as pooling, batch norm, activations, sums
            and the scaling of SE.

    Examples:
        >>> found = senet.cost(senet.create_model("se_resnet20"), (3, 32, 32), activations=False)
        >>> found.plain.params + found.se.params == found.params
        True
    """

    params: int = 0
    macs: int = 0
    other: int = 0

    @classmethod
    def total(cls, parts: Iterable["Part"]) -> "Part":
        """Return the sum of parts."""
        found = list(parts)
        return cls(sum(p.params for p in found), sum(p.macs for p in found), sum(p.other for p in found))


@dataclass(frozen=True)
class Block:
    """A block of a network: a residual unit, an Inception module, or a layer outside such blocks.

    Attributes:
        name: of the module, as in `named_modules`; empty for what the network computes outside its children.
        stage: the paper's number, the stem being 1; None after the last map, and for a block that did not run.
        channels: of the output; None for a block that did not run.
        resolution: the output's spatial axes.
        sites: the names of the SE modules in it.
        plain: everything but SE.
        se: SE alone.

    Examples:
        >>> found = senet.cost(senet.create_model("se_resnet20"), (3, 32, 32), activations=False)
        >>> block = next(block for block in found.blocks if block.sites)
        >>> block.name, block.stage, block.channels, block.resolution, block.se.params
        ('layer1.0', 2, 16, (32, 32), 49)
    """

    name: str
    stage: int | None
    channels: int | None
    resolution: tuple[int, ...]
    sites: tuple[str, ...]
    plain: Part
    se: Part


def divide(model: nn.Module, run: Trace, image: tuple[int, ...]) -> tuple[Block, ...]:
    """Return the blocks of a network, in the order in which they run; everything is in one of them, and none is empty.

    A container is not a block, but each of its modules is. Nor is a module that computes nothing by itself and holds
    several modules with children, such as a stage of units.

    Args:
        model: the network.
        run: its trace.
        image: (C, *spatial) of the image that it ran on.
    """
    return _Blocks(model, run).rows(image)


class _Blocks:
    def __init__(self, model: nn.Module, run: Trace) -> None:
        self._model, self._run = model, run
        self._names = {module: name for name, module in model.named_modules()}
        self._se = find_se(model)
        self._se_modules = {part for unit in self._se for part in unit.parts}
        # Multiply-adds and other elements written by the operations of each call, None standing for no module.
        self._computed: dict[int | None, list[int]] = {}
        for operation in run.operations:
            macs, written = count(operation)
            if macs or written:
                total = self._computed.setdefault(operation.call, [0, 0])
                total[0] += macs
                total[1] += written
        self._active = {run.calls[call].module for call in self._computed if call is not None}
        self._blocks = {self._names[module]: module for module in self._find(model.children())}

    def rows(self, image: tuple[int, ...]) -> tuple[Block, ...]:
        """Return the blocks."""
        parts: dict[tuple[str, bool], list[int]] = {}
        for call, (macs, written) in self._computed.items():
            path = [one.module for one in self._run.enclosing(call)]
            part = parts.setdefault((self._block_at(path), not self._se_modules.isdisjoint(path)), [0, 0, 0])
            part[1] += macs
            part[2] += written
        names = [self._names[part] for part in self._se_modules]
        se_names = tuple(f"{name}." for name in names)
        for name, parameter in self._model.named_parameters():
            key = (self._block_of(name), name.startswith(se_names) or not all(names))
            parts.setdefault(key, [0, 0, 0])[0] += parameter.numel()
        sites = [(self._block_of(unit.name), unit.name) for unit in self._se]
        shapes = _output_shapes(self._run.calls)
        started = {module: number for number, module in enumerate(shapes)}
        order = {name: started.get(module, len(started)) for name, module in self._blocks.items()}
        names = sorted({name for name, _ in parts}, key=lambda name: order.get(name, len(started) + 1))
        outputs = [shapes.get(self._blocks.get(name, self._model), ()) for name in names]
        sums = [sum(parts.get((name, se), (0, 0))[1] for se in (False, True)) for name in names]
        blocks = zip(names, [shape[2:] for shape in outputs], sums, strict=True)
        stages = block_stages(blocks, image[1:], _unit_stages(self._model))
        return tuple(
            Block(
                name=name,
                stage=stage,
                channels=shape[1] if len(shape) > 1 else None,
                resolution=shape[2:],
                sites=tuple(site for block, site in sites if block == name),
                plain=Part(*parts.get((name, False), ())),
                se=Part(*parts.get((name, True), ())),
            )
            for name, stage, shape in zip(names, stages, outputs, strict=True)
        )

    def _find(self, children: Iterable[nn.Module]) -> Iterator[nn.Module]:
        for child in children:
            within = list(child.children())
            stage = len(within) > 1 and all(any(True for _ in one.children()) for one in within)
            if within and child not in self._active and (stage or isinstance(child, _CONTAINERS)):
                yield from self._find(within)
            else:
                yield child

    def _block_at(self, path: list[nn.Module]) -> str:
        """Return the block of an operation, from the modules that it ran in, innermost first."""
        outermost = next((module for module in reversed(path) if self._blocks.get(self._names[module]) is module), None)
        # A module may be called as a function, so that no hook saw the call of the block around it.
        return self._block_of(self._names[path[0]] if outermost is None else self._names[outermost]) if path else ""

    def _block_of(self, name: str) -> str:
        while name and name not in self._blocks:
            name = name.rpartition(".")[0]
        return name


def _output_shapes(calls: Iterable[Call]) -> dict[nn.Module, tuple[int, ...]]:
    """Return the shape of each module's last output, in the order in which modules began; empty without a tensor."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    for call in calls:
        outputs = call.output if isinstance(call.output, tuple | list) else (call.output,)
        shapes[call.module] = next((value.shape for value in outputs if isinstance(value, Value)), ())
    return shapes


def _unit_stages(model: nn.Module) -> Mapping[str, int | None]:
    """Return the stages of residual units, by name; empty for a network without them."""
    try:
        return {site.unit: site.stage for site in table_sites(model)}
    except ValueError:
        return {}
