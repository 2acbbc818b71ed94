"""What a network costs: parameters, multiply-adds and what training keeps of it, with SE apart from the rest."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from senet.graph.counting import Count, count_operations, saved_bytes
from senet.graph.se_modules import find_se
from senet.graph.shapes import octaves
from senet.insertion.sites import find_sites

__all__ = ["Block", "Cost", "Part", "cost"]

# Of the batch for which saved activations are counted: batch norm with SE is fused where maps are large, see
# `senet.set_fused`, and those of small images are large enough in a batch like this.
_IMAGES = 256
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Part:
    """The cost of a part, such as SE, of a network or of one of its blocks.

    Attributes:
        params: parameters, each once.
        macs: multiply-adds of convolutions, linear layers and matrix products, for one image.
        other: elements that everything else writes for one image, such as pooling, batch norm, activations, sums and
            the scaling of SE.
    """

    params: int = 0
    macs: int = 0
    other: int = 0

    @classmethod
    def total(cls, parts: Iterable["Part"]) -> "Part":
        """The sum of parts."""
        found = list(parts)
        return cls(sum(p.params for p in found), sum(p.macs for p in found), sum(p.other for p in found))


@dataclass(frozen=True)
class Block:
    """A block of a network: a residual unit, an Inception module, or what stands by itself such as a convolution.

    Attributes:
        name: of the module, as in `named_modules`; empty for what the network does by itself, outside these.
        stage: the paper's number, the stem being 1; None behind the last map, and for what did not run.
        channels: of the output; None for what did not run.
        resolution: the output's spatial axes.
        sites: the names of the SE modules in it.
        plain: what is not SE.
        se: what is.
    """

    name: str
    stage: int | None
    channels: int | None
    resolution: tuple[int, ...]
    sites: tuple[str, ...]
    plain: Part
    se: Part


@dataclass(frozen=True)
class Cost:
    """A network's cost.

    Attributes:
        input_size: (C, *spatial) of the image that it is counted for.
        blocks: in the order in which they run; everything is in one of them.
        saved_bytes: that a forward pass in training keeps for the way back, for each image of a batch; None where it
            was not asked for.
    """

    input_size: tuple[int, ...]
    blocks: tuple[Block, ...]
    saved_bytes: int | None

    @property
    def plain(self) -> Part:
        """Everything but SE: the parameters and multiply-adds of the plain twin."""
        return Part.total(block.plain for block in self.blocks)

    @property
    def se(self) -> Part:
        """SE alone."""
        return Part.total(block.se for block in self.blocks)

    @property
    def params(self) -> int:
        """Parameters, each once."""
        return self.plain.params + self.se.params

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions, linear layers and matrix products, for one image."""
        return self.plain.macs + self.se.macs

    @property
    def other(self) -> int:
        """Elements that everything else writes, for one image."""
        return self.plain.other + self.se.other

    @property
    def se_params(self) -> int:
        """Parameters of SE: where its layers have no biases, 2/r times the sum of C squared (paper section 3.2)."""
        return self.se.params

    @property
    def se_macs(self) -> int:
        """Multiply-adds of SE: as many as its layers have weights, but for the squeeze "none"."""
        return self.se.macs


def cost(model: nn.Module, input_size: Sequence[int], *, activations: bool = True) -> Cost:
    """Count what a network costs as it is, by block, with SE apart.

    The network's own forward pass is run, on tensors that have shapes and no values. Multiply-adds are counted in
    evaluation, for one image, operation by operation: functional convolutions and matrix products count as modules do,
    and PyTorch's `FlopCounterMode` gives twice the number. SE is what `senet.graph.se_modules.find_se` finds,
    including timm's and torchvision's.

    The bytes that training keeps are those of one more image in a batch of 256: each storage once, however many
    operations save it, without parameters, buffers and the loss. Batch norm with SE counts as it is computed for such a
    batch, fused, so that it keeps nothing but the map that comes in; or as its parts, where `senet.set_fused` has
    turned that off.

    Args:
        model: any network that takes one tensor, on the meta device too.
        input_size: (C, *spatial) of an image, without the batch.
        activations: whether to count `saved_bytes`, which takes two passes more.

    Returns:
        The cost. Parameters, buffers, modes and hooks of the network are as before.

    Raises:
        TypeError: no network, or an input size that is not of whole numbers.
        ValueError: a size below 1, an input that the network cannot take, or a network that looks at values.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a network, a torch.nn.Module, got {model!r}; senet.create_model builds one by name")
    if not isinstance(input_size, Sequence) or not all(isinstance(length, int) for length in input_size):
        raise TypeError(f"input_size must be whole numbers (C, *spatial), such as (3, 224, 224), got {input_size!r}")
    size = tuple(input_size)
    if not size or min(size) < 1:
        raise ValueError(f"input_size must be (C, *spatial), each 1 or more, such as (3, 224, 224), got {size}")
    model = getattr(model, "_orig_mod", model)  # what `torch.compile` wraps
    blocks = _Blocks(model, count_operations(model, size)).rows(size)
    saved = None
    if activations:
        more, fewer = (saved_bytes(model, images, size) for images in (2 * _IMAGES, _IMAGES))
        saved = (more - fewer) // _IMAGES
    return Cost(size, blocks, saved)


class _Blocks:
    """What was counted, put together by block.

    A container is no block, but each of its modules; nor is a module that does nothing by itself and holds several
    modules that have modules in them, such as a stage of units.
    """

    def __init__(self, model: nn.Module, count: Count) -> None:
        self._model, self._count = model, count
        self._names = {module: name for name, module in model.named_modules()}
        self._se = find_se(model)
        self._se_modules = {part for unit in self._se for part in unit.parts}
        self._active = {modules[-1] for modules, found in count.operations.items() if modules and any(found)}
        self._blocks = {self._names[module]: module for module in self._find(model.children())}

    def rows(self, size: tuple[int, ...]) -> tuple[Block, ...]:
        """The blocks, of which none is empty."""
        parts: dict[tuple[str, bool], list[int]] = {}
        for modules, found in self._count.operations.items():
            if any(found):
                key = (self._block_at_work(modules), not self._se_modules.isdisjoint(modules))
                part = parts.setdefault(key, [0, 0, 0])
                part[1] += found[0]
                part[2] += found[1]
        names = [self._names[part] for part in self._se_modules]
        se_names = tuple(f"{name}." for name in names)
        for name, parameter in self._model.named_parameters():
            key = (self._block_of(name), name.startswith(se_names) or not all(names))
            parts.setdefault(key, [0, 0, 0])[0] += parameter.numel()
        sites = [(self._block_of(unit.name), unit.name) for unit in self._se]
        started = {module: number for number, module in enumerate(self._count.shapes)}
        order = {name: started.get(module, len(started)) for name, module in self._blocks.items()}
        names = sorted({name for name, _ in parts}, key=lambda name: order.get(name, len(started) + 1))
        shapes = [self._count.shapes.get(self._blocks.get(name, self._model), ()) for name in names]
        macs = [sum(parts.get((name, se), (0, 0))[1] for se in (False, True)) for name in names]
        stages = _stages(self._model, zip(names, [shape[2:] for shape in shapes], macs, strict=True), size)
        return tuple(
            Block(
                name,
                stage,
                shape[1] if len(shape) > 1 else None,
                shape[2:],
                tuple(site for block, site in sites if block == name),
                Part(*parts.get((name, False), ())),
                Part(*parts.get((name, True), ())),
            )
            for name, stage, shape in zip(names, stages, shapes, strict=True)
        )

    def _find(self, children: Iterable[nn.Module]) -> Iterator[nn.Module]:
        for child in children:
            within = list(child.children())
            stage = len(within) > 1 and all(any(True for _ in one.children()) for one in within)
            if within and child not in self._active and (stage or isinstance(child, _CONTAINERS)):
                yield from self._find(within)
            else:
                yield child

    def _block_at_work(self, modules: Sequence[nn.Module]) -> str:
        outermost = next((module for module in modules if self._blocks.get(self._names[module]) is module), None)
        # A module may be called as a function, so that nobody saw the block that it is in at work.
        return self._block_of(self._names[modules[-1]] if outermost is None else self._names[outermost])

    def _block_of(self, name: str) -> str:
        while name and name not in self._blocks:
            name = name.rpartition(".")[0]
        return name


def _stages(
    model: nn.Module, blocks: Iterable[tuple[str, tuple[int, ...], int]], size: tuple[int, ...]
) -> list[int | None]:
    """The paper's number of each block's stage: that of residual units, and log2 of the total stride elsewhere.

    Where spatial axes have different strides, it is log2 of their geometric mean. A network whose first map is as large
    as its image has one more, so that the stem is 1 everywhere. What multiplies nothing, such as a pool, goes with what
    is before it. A block without spatial axes, or behind the pooling over all of space, is in none.

    Args:
        model: the network.
        blocks: names, resolutions and multiply-adds, as they run.
        size: of the image.
    """
    try:
        units = {site.unit: site.stage for site in find_sites(model)}
    except ValueError:  # no residual units, or with SE of their own
        units = {}
    found: list[int | None] = []
    known: dict[tuple[int, ...], int] = {}
    stem: int | None = None
    for name, resolution, macs in blocks:
        stage = next((n for unit, n in units.items() if unit == name or unit.startswith(f"{name}.")), None)
        if stage is not None:
            known[resolution] = stage
        elif not resolution or (max(resolution) == 1 and max(size[1:], default=1) > 1):
            pass
        elif found and found[-1] is not None and not macs:
            stage = found[-1]
        else:
            stride = round(octaves(size[1:], resolution) or 0)
            stem = stride if stem is None else stem
            # Behind a unit, what has a map of the same size is of the same stage.
            stage = known.get(resolution, stride + (stem == 0))
        found.append(stage)
    return found
