"""Where SE can go in a network: a placement says which sites, and the tables of `senet.families` say where they are."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import log2

from torch import Tensor, nn

from senet.batch_norm import BATCH_NORMS, SEBatchNorm
from senet.errors import unknown_name
from senet.families import UNITS, Spot, family_of, unit_of
from senet.recalibration import Recalibrate
from senet.se_modules import own_se
from senet.shapes import Seen, meta_shapes, shapes_of

__all__ = ["PLACEMENTS", "Site", "find_sites"]

PLACEMENTS = ("standard", "pre", "post", "identity", "conv3x3")
# Where a residual unit of another library keeps attention that is not SE, such as ECA.
_ATTENTION = ("se", "se_module")


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
        unit: the residual unit or the block, as in `named_modules`, or the module itself outside one.
    """

    name: str
    channels: int
    stage: int | None
    how: str
    placement: str
    unit: str


@dataclass(frozen=True)
class _Candidate:
    """What becomes a site when its channels and its stage are known.

    `first_stage` is that of a family, whose sites are all told by a run; None of a module that `at` names.
    """

    name: str
    how: str
    unit: str
    channels: int | None = None
    stage: int | None = None
    first_stage: int | None = None


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

    The families of `senet.families` have "standard" alone: in VGG after the ReLU of each convolution; the output of an
    Inception's modules; the end of a residual branch in Inception-ResNet-v2, ShuffleNet v1 and Shake-Shake; in
    MobileNet v1 after the batch norm and ReLU of each pointwise convolution. Their channels and stages are those of a
    run, for which no memory is taken and nothing computed.

    Args:
        model: a network with residual units as torchvision, timm and senet build them, or of these families; or any
            network, with `at`.
        placement: one of `PLACEMENTS`.
        stages: only those stages, in the paper's numbers: the first stage of residual units is 2; elsewhere log2 of
            the total stride, and of VGG 1 to 5.
        at: only sites whose name, or whose unit's name, is one of these or matches it as a glob (`layer3.*`). A name
            that is no site's takes the module of that name, in any network: "standard" and "post" then stand for its
            output, "pre" for its input; at a sequence SE stands at its last or first module.
        example: an input of the network, (N, C, *spatial). Run once, in evaluation, where the channels or the stage of
            a module named by `at` cannot be told without; the stage is then log2 of the total stride.

    Raises:
        TypeError: no network; stages that are not whole numbers; `at` that is not text.
        ValueError: unknown placement; a network of no known family and no `at`; a placement that its family does not
            have; SE of the network's own; a stage that does not exist; a pattern of `at` that matches nothing; channels
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
    own = own_se(model)
    if own is not None:
        name = own.name or type(model).__name__
        raise ValueError(f"{name} is SE of the network's own: SE must act once; take the plain network")
    candidates = list(_candidates(model, placement))
    if at is not None:
        candidates = _at(model, placement, candidates, patterns)
    elif not candidates:
        raise ValueError(_none(model, placement))
    sites = _sites(model, placement, candidates, example)
    return sites if stages is None else _in_stages(sites, set(numbers))


def _none(model: nn.Module, placement: str) -> str:
    """What is wrong with a network that has no sites of this placement."""
    kind = type(model).__name__
    if any(family_of(block) for block in model.modules()):
        return (
            f"placement {placement!r} is only in residual units relu(branch(x) + skip(x)), and {kind} has none; use "
            f"'standard', or name modules with at=[...]"
        )
    return (
        f"found no residual units in {kind}: looked for blocks with the children "
        + " or ".join(f"({' '.join(unit.children)})" for unit in UNITS)
        + " in this order of definition, and `downsample`. In another network, name modules with at=[...]."
    )


def _candidates(model: nn.Module, placement: str) -> Iterator[_Candidate]:
    # A stage is one container of units; its number counts the containers that stand beside each other.
    containers: dict[str, list[str]] = {}
    for name, block in model.named_modules():
        known = family_of(block)
        if known is not None:
            family, spots = known
            for unit_name, child in spots if placement == "standard" else ():
                how = _how(block.get_submodule(child), "output")
                yield _Candidate(_join(name, child), how, _join(name, unit_name), first_stage=family.first_stage)
            continue
        unit = unit_of(block)
        if unit is None:
            continue
        _refuse_attention(name, block)
        container = name.rpartition(".")[0]
        beside = containers.setdefault(container.rpartition(".")[0], [])
        if container not in beside:
            beside.append(container)
        spot = unit.spots[placement]
        channels = getattr(getattr(block, spot.conv), spot.channels)
        child, how = _locate(block, spot)
        yield _Candidate(_join(name, child), how, name, channels, 2 + beside.index(container))


def _refuse_attention(name: str, unit: nn.Module) -> None:
    for child in _ATTENTION:
        own = getattr(unit, child, None)
        if own is not None and not isinstance(own, nn.Identity):
            raise ValueError(
                f"{name}.{child} is attention of the network's own ({type(own).__name__}), and SE would scale the same "
                f"channels once more; take the plain network"
            )


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)


def _locate(block: nn.Module, spot: Spot) -> tuple[str, str]:
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


def _at(model: nn.Module, placement: str, candidates: list[_Candidate], patterns: list[str]) -> list[_Candidate]:
    """The candidates that the patterns pick, each once, in the network's order, then modules that are no site."""
    if not patterns:
        raise ValueError("at= is empty: name sites, units or modules, or leave it out for every site")
    picked: set[_Candidate] = set()
    others: dict[str, nn.Module] = {}
    for pattern in patterns:
        among_sites = {c for c in candidates if fnmatchcase(c.name, pattern) or fnmatchcase(c.unit, pattern)}
        among_modules = {n: m for n, m in model.named_modules() if n and fnmatchcase(n, pattern)}
        if not among_sites and not among_modules:
            names = [c.name for c in candidates] or [n for n, _ in model.named_modules() if n]
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
    return [c for c in candidates if c in picked] + [_Candidate(n, _how(m, side), n) for n, m in others.items()]


def _sites(model: nn.Module, placement: str, candidates: list[_Candidate], example: Tensor | None) -> list[Site]:
    """Candidates with their channels and stages: where they do not say them, from a run."""
    modules = {c.name: model.get_submodule(c.name) for c in candidates if c.channels is None}
    shapes: dict[str, Seen] = {}
    if modules and example is not None:
        shapes = shapes_of(model, modules, example)
    elif any(c.first_stage is not None for c in candidates):
        shapes = meta_shapes(model, modules)
    sites = []
    for c in candidates:
        channels, stage = c.channels, c.stage
        if channels is None and (example is not None or c.first_stage is not None):
            channels, stage = _of_a_run(c, modules[c.name], shapes)
        elif channels is None:
            channels = _declared(c, modules[c.name])
        sites.append(Site(c.name, channels, stage, c.how, placement, c.unit))
    return sites


def _of_a_run(candidate: _Candidate, module: nn.Module, shapes: dict[str, Seen]) -> tuple[int, int]:
    """Channels and stage of the map that was seen there."""
    if candidate.name not in shapes:
        raise ValueError(
            f"{candidate.name!r} ({type(module).__name__}) did not take a tensor and give one when the network ran on "
            f"the example; name a module inside it, or another one"
        )
    seen = shapes[candidate.name]
    shape = seen.taken if candidate.how == "input" else seen.given
    if len(shape) < 3:
        raise ValueError(
            f"the map at {candidate.name!r} has no spatial axis: its shape is {shape}; name another module"
        )
    return shape[1], (candidate.first_stage or 0) + round(log2(max(1, seen.height / shape[2])))


def _declared(candidate: _Candidate, module: nn.Module) -> int:
    """The channels that a module itself says that it has."""
    attributes = ("in_channels", "num_features") if candidate.how == "input" else ("out_channels", "num_features")
    channels = next((c for c in (getattr(module, a, None) for a in attributes) if isinstance(c, int)), None)
    if channels is None:
        raise ValueError(
            f"{candidate.name!r} ({type(module).__name__}) does not say how many channels its {candidate.how} has; "
            f"give example=, an input of the network that reaches it"
        )
    return channels


def _in_stages(sites: list[Site], stages: set[int]) -> list[Site]:
    unknown = [site.name for site in sites if site.stage is None]
    if unknown:
        raise ValueError(f"the stage of {unknown[0]!r} is not known: give example=, an input to run the network on")
    there = sorted({site.stage for site in sites if site.stage is not None})
    if not stages or not stages <= set(there):
        raise ValueError(f"stages={sorted(stages)} are not all among this network's stages {there}")
    return [site for site in sites if site.stage in stages]
