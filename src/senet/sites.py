"""Where SE can go in a network: a placement says which sites, and the table of units says where they are.

A residual unit is told by the names of its children and the order in which they are defined, which is the same in
torchvision's, timm's and senet's networks; no network has code of its own.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import log2
from typing import Any

import torch
from torch import Tensor, nn

from senet.batch_norm import BATCH_NORMS, SEBatchNorm
from senet.errors import unknown_name
from senet.modes import evaluating
from senet.recalibration import Recalibrate

__all__ = ["PLACEMENTS", "Site", "find_sites"]

PLACEMENTS = ("standard", "pre", "post", "identity", "conv3x3")


@dataclass(frozen=True)
class Site:
    """A place for SE.

    Attributes:
        name: the module at which SE acts, as in `named_modules`.
        channels: C of the map there.
        stage: the paper's number of the stage, the first stage of blocks being 2; None where it is not known.
        how: "batch_norm": an `SEBatchNorm` takes this batch norm's place; "input" or "output": of the module; "skip":
            a module in the empty slot of an identity skip.
        placement: which of `PLACEMENTS` the site belongs to.
        unit: the residual unit, as in `named_modules`, or the module itself outside one.
    """

    name: str
    channels: int
    stage: int | None
    how: str
    placement: str
    unit: str


@dataclass(frozen=True)
class _Spot:
    """A child of a unit (the unit itself: ""), the side of it, and the convolution whose channels the map has."""

    child: str
    side: str
    conv: str
    channels: str = "out_channels"


@dataclass(frozen=True)
class _Unit:
    """A kind of residual unit: its children in the order of their definition, and the spot of each placement."""

    children: tuple[str, ...]
    spots: dict[str, _Spot]


def _unit(children: str, *, end: str, last: str, inner: str, conv3x3: str) -> _Unit:
    """A row of the table: `end` closes the branch, `inner` is the batch norm after the 3x3 convolution `conv3x3`."""
    return _Unit(
        tuple(children.split()),
        {
            "standard": _Spot(end, "output", last),
            "pre": _Spot("conv1", "input", "conv1", "in_channels"),
            "post": _Spot("", "output", last),
            "identity": _Spot("downsample", "output", last),
            "conv3x3": _Spot(inner, "output", conv3x3),
        },
    )


# Longer units first: a basic unit's children are among a bottleneck's. The order of definition tells the batch norm
# that follows a convolution from the pre-activation that precedes it.
_UNITS = (
    _unit("conv1 bn1 conv2 bn2 conv3 bn3", end="bn3", last="conv3", inner="bn2", conv3x3="conv2"),
    _unit("bn1 conv1 bn2 conv2 bn3 conv3", end="conv3", last="conv3", inner="bn3", conv3x3="conv2"),
    _unit("conv1 bn1 conv2 bn2", end="bn2", last="conv2", inner="bn1", conv3x3="conv1"),
    _unit("bn1 conv1 bn2 conv2", end="conv2", last="conv2", inner="bn2", conv3x3="conv1"),
)
# Where a unit of another library keeps SE of its own.
_OWN_SE = ("se", "se_module")


def find_sites(
    model: nn.Module,
    placement: str = "standard",
    *,
    stages: int | Collection[int] | None = None,
    at: str | Iterable[str] | None = None,
    example: Tensor | None = None,
) -> list[Site]:
    """The sites of a placement, in the order of the network's modules (paper section 6.5 and Figure 5).

    In a residual unit `out = relu(branch(x) + skip(x))`: "standard" is the branch's end, before the sum; "pre" the
    branch's input; "post" the unit's output; "identity" the skip's end; "conv3x3" stands after the branch's 3x3
    convolution. In a pre-activation unit "standard" is the branch's output, and "pre" the branch's input after the
    first batch norm and ReLU.

    Args:
        model: a network with residual units as torchvision, timm and senet build them; or any network, with `at`.
        placement: one of `PLACEMENTS`.
        stages: only those stages, in the paper's numbers: the first stage of blocks is 2.
        at: only sites whose name, or whose unit's name, is one of these or matches it as a glob (`layer3.*`). A name
            that is no site's takes the module of that name, in any network: "standard" and "post" then stand for its
            output, "pre" for its input; at a sequence SE stands at its last or first module.
        example: an input of the network, (N, C, *spatial). Run once, in evaluation, where the channels or the stage of
            a module named by `at` cannot be told without; the stage is then log2 of the total stride.

    Raises:
        TypeError: no network; stages that are not whole numbers; `at` that is not text.
        ValueError: unknown placement; a network without residual units and no `at`; a stage that does not exist; a
            pattern of `at` that matches nothing; a unit with SE of its own, or without the placement's spot; channels
            or stages that cannot be told without `example`; a container, or a map without a spatial axis.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a network, a torch.nn.Module, got {model!r}; senet.create_model builds one by name")
    if placement not in PLACEMENTS:
        raise ValueError(unknown_name("placement", placement, PLACEMENTS))
    numbers = [stages] if isinstance(stages, int) else list(stages or ())
    if not all(isinstance(stage, int) for stage in numbers):
        raise TypeError(f"stages must be whole numbers such as {{2, 3}}, got {stages!r}")
    patterns = [at] if isinstance(at, str) else list(at or ())
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"at must be names or globs such as 'layer3.*', got {at!r}")
    sites = list(_unit_sites(model, placement))
    if at is not None:
        sites = _at(model, placement, sites, patterns, example)
    elif not sites:
        raise ValueError(
            f"found no residual units in {type(model).__name__}: looked for blocks with the children "
            + " or ".join(f"({' '.join(unit.children)})" for unit in _UNITS)
            + " in this order of definition, and `downsample`. In another network, name modules with at=[...]."
        )
    return sites if stages is None else _in_stages(sites, set(numbers))


def _unit_sites(model: nn.Module, placement: str) -> Iterator[Site]:
    # A stage is one container of units; its number counts the containers that stand beside each other.
    containers: dict[str, list[str]] = {}
    for name, block in model.named_modules():
        unit = next((unit for unit in _UNITS if _matches(block, unit)), None)
        if unit is None:
            continue
        own = next((child for child in _OWN_SE if getattr(block, child, None) is not None), None)
        if own is not None:
            raise ValueError(f"{name}.{own} is SE of the network's own: SE must act once; take the plain network")
        container = name.rpartition(".")[0]
        beside = containers.setdefault(container.rpartition(".")[0], [])
        if container not in beside:
            beside.append(container)
        spot = unit.spots[placement]
        channels = getattr(getattr(block, spot.conv), spot.channels)
        site, how = _locate(block, spot)
        full_name = ".".join(part for part in (name, site) if part)
        yield Site(full_name, channels, 2 + beside.index(container), how, placement, name)


def _matches(block: nn.Module, unit: _Unit) -> bool:
    """Whether the block has a slot for its skip and the unit's children, in the unit's order of definition."""
    children = iter(name for name, _ in block.named_children())
    return hasattr(block, "downsample") and all(child in children for child in unit.children)


def _locate(block: nn.Module, spot: _Spot) -> tuple[str, str]:
    """The module at a spot, by its name in the block, and how SE hangs there."""
    module = getattr(block, spot.child) if spot.child else block
    if module is None or (isinstance(module, Recalibrate) and module.how == "skip"):
        return spot.child, "skip"
    name, module = _descend(spot.child, module, spot.side)
    return name, _how(module, spot.side)


def _descend(name: str, module: nn.Module, side: str) -> tuple[str, nn.Module]:
    """The module whose input or output is that of `module`: of a sequence, its first or its last.

    A sequence cannot hold SE itself: it would run the child as one more step, beside the hook that applies it.
    """
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        step = list(module._modules)[0 if side == "input" else -1]
        name, module = f"{name}.{step}", module._modules[step] or module
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise ValueError(
            f"{name!r} ({type(module).__name__}) is a container that runs its children by itself, and SE would be one "
            f"more; name a module inside it"
        )
    return name, module


def _how(module: nn.Module, side: str) -> str:
    return "batch_norm" if side == "output" and _is_batch_norm(module) else side


def _is_batch_norm(module: nn.Module) -> bool:
    if isinstance(module, SEBatchNorm):
        return True
    # A subclass does something more, and a user's hook on a batch norm is to see that batch norm: leave both in place.
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return type(module) in BATCH_NORMS.values() and not any(hooks)


def _at(model: nn.Module, placement: str, sites: list[Site], patterns: list[str], example: Tensor | None) -> list[Site]:
    """The sites that the patterns pick, each once, in the network's order, then modules that are no site."""
    if not patterns:
        raise ValueError("at= is empty: name sites, units or modules, or leave it out for every site")
    picked: set[Site] = set()
    others: dict[str, nn.Module] = {}
    for pattern in patterns:
        among_sites = {s for s in sites if fnmatchcase(s.name, pattern) or fnmatchcase(s.unit, pattern)}
        among_modules = {n: m for n, m in model.named_modules() if n and fnmatchcase(n, pattern)}
        if not among_sites and not among_modules:
            names = [s.name for s in sites] or [n for n, _ in model.named_modules() if n]
            raise ValueError(unknown_name("site or module in at=", pattern, names) + f" The first one is {names[0]!r}.")
        picked |= among_sites
        others |= {} if among_sites else among_modules
    if others and placement in ("identity", "conv3x3"):
        raise ValueError(
            f"at={sorted(others)} are no residual units' sites, and placement {placement!r} is only for residual "
            f"units; use standard, pre or post for a module's output or input"
        )
    side = "input" if placement == "pre" else "output"
    others = dict(_descend(name, module, side) for name, module in others.items())
    shapes = {} if example is None else _shapes(model, others, example)
    return [s for s in sites if s in picked] + [
        _module_site(name, module, _how(module, side), placement, shapes.get(name), example)
        for name, module in others.items()
    ]


def _module_site(
    name: str,
    module: nn.Module,
    how: str,
    placement: str,
    shapes: tuple[torch.Size, torch.Size] | None,
    example: Tensor | None,
) -> Site:
    """A site at any module: channels and stage from the shapes seen in a run, or the channels that it declares."""
    if shapes is not None and example is not None:
        shape = shapes[0] if how == "input" else shapes[1]
        if len(shape) < 3:
            raise ValueError(
                f"the map at {name!r} has no spatial axis: its shape is {tuple(shape)}; name another module"
            )
        stage = round(log2(max(1, example.shape[2] / shape[2])))
        return Site(name, shape[1], stage, how, placement, name)
    if example is not None:
        raise ValueError(
            f"{name!r} ({type(module).__name__}) did not take a tensor and give one when the network ran on "
            f"the example; name a module inside it, or another one"
        )
    attributes = ("in_channels", "num_features") if how == "input" else ("out_channels", "num_features")
    channels = next((c for c in (getattr(module, a, None) for a in attributes) if isinstance(c, int)), None)
    if channels is None:
        raise ValueError(
            f"{name!r} ({type(module).__name__}) does not say how many channels its {how} has; give example=, an input "
            f"of the network that reaches it"
        )
    return Site(name, channels, None, how, placement, name)


def _shapes(
    model: nn.Module, modules: dict[str, nn.Module], example: Tensor
) -> dict[str, tuple[torch.Size, torch.Size]]:
    """Shapes of what goes in and comes out of each module, first call, on one run in evaluation."""
    seen: dict[str, tuple[torch.Size, torch.Size]] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                seen.setdefault(name, (args[0].shape, output.shape))

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _in_stages(sites: list[Site], stages: set[int]) -> list[Site]:
    unknown = [site.name for site in sites if site.stage is None]
    if unknown:
        raise ValueError(f"the stage of {unknown[0]!r} is not known: give example=, an input to run the network on")
    there = sorted({site.stage for site in sites if site.stage is not None})
    if not stages or not stages <= set(there):
        raise ValueError(f"stages={sorted(stages)} are not all among this network's stages {there}")
    return [site for site in sites if site.stage in stages]
