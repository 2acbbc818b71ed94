"""Find the sites of a network for a placement: candidates of known blocks or modules named by `at`."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

from torch import nn

from senet.graph.example_inputs import Example
from senet.graph.se_modules import own_se
from senet.graph.shapes import Maps, maps_of, maps_on_meta
from senet.insertion.attachment import attachment, first_or_last_step
from senet.insertion.candidates import Candidate, Candidates
from senet.insertion.families import UNITS, family_of
from senet.insertion.site_maps import channels_and_stage, declared_channels, refuse_repeated
from senet.insertion.unit_checks import is_trusted
from senet.utils.choices import Placement, check_choice
from senet.utils.errors import unknown_name

__all__ = ["PLACEMENTS", "Site", "find_sites"]

PLACEMENTS: tuple[Placement, ...] = get_args(Placement)


@dataclass(frozen=True)
class Site:
    """A site for SE.

    Attributes:
        name: the module at which SE acts, as in `named_modules`.
        channels: C of the map there.
        stage: number of the stage as in the paper, where the first stage of blocks is 2; None if unknown.
        how: "batch_norm": an `SEBatchNorm` replaces the batch norm; "input" or "output": SE acts on that side of the
            module; "skip": SE is a module in the empty slot of an identity skip.
        placement: placement of the site.
        unit: the residual unit or block, as in `named_modules`; outside of units the module itself.
    """

    name: str
    channels: int
    stage: int | None
    how: str
    placement: str
    unit: str


def find_sites(
    model: nn.Module,
    placement: Placement = "standard",
    *,
    stages: int | Collection[int] | None = None,
    at: str | Iterable[str] | None = None,
    example: Example | None = None,
) -> list[Site]:
    """Return the sites of a placement, in the order of the network's modules (paper section 6.5 and Figure 5).

    In a residual unit `out = relu(branch(x) + skip(x))`: "standard" is the end of the branch, before the sum; "pre" its
    input; "post" the unit's output; "identity" the end of the skip; "conv3x3" is after the branch's 3x3 convolution. In
    a pre-activation unit "standard" is the branch's output, and "pre" its input after the first batch norm and ReLU.

    The families of `senet.insertion.families` have only "standard": in VGG after each convolution's ReLU; the output
    of Inception modules; the end of a residual branch in Inception-ResNet-v2, ShuffleNet v1 and Shake-Shake; in
    MobileNet v1 after the batch norm and ReLU of each pointwise convolution. Their channels and stages come from a
    run on the meta device.

    Args:
        model: a network with residual units as in torchvision, timm and senet, or of these families; or any network
            with `at`.
        placement: one of `PLACEMENTS`.
        stages: only sites in these stages, numbered as in the paper: the first stage of residual units is 2; elsewhere
            log2 of the total stride, and 1 to 5 in VGG.
        at: only sites whose name or unit matches one of these names or globs (`layer3.*`). A name that is not a site
            selects the module of that name, in any network: its output for "standard" and "post", its input for "pre";
            for a sequence, its last or first module.
        example: an input of the network: a tensor (N, C, *spatial), a tuple of inputs, or a dict of inputs by
            keyword. The network then runs on it in evaluation mode, and sites are checked against this run. It also
            gives the channels and stage of modules named by `at`; the stage is log2 of the total stride (geometric mean
            over spatial axes).

    Raises:
        TypeError: `model` is not a network, `stages` not integers, `at` not text, or `example` of another type.
        ValueError: an unknown placement; a network of an unknown family without `at`; a placement that the family
            lacks; a network with SE of its own; a stage that does not exist; a pattern of `at` without match; channels
            or stages that are unknown without `example`; an example on which the network does not run; a container; a
            map without spatial axes or with channels on another axis than 1, or a module that runs several times.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a network, a torch.nn.Module, got {model!r}; senet.create_model builds one by name")
    check_choice("placement", placement, Placement)
    numbers = [stages] if isinstance(stages, int) else list(stages or ())
    if not all(isinstance(stage, int) for stage in numbers):
        raise TypeError(f"stages must be whole numbers such as {{2, 3}}, got {stages!r}")
    patterns = [at] if isinstance(at, str) else list(at or ())
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"at must be names or globs such as 'layer3.*', got {at!r}")
    own = own_se(model, example)
    if own is not None:
        name = own.name or type(model).__name__
        raise ValueError(f"{name} is SE of the network's own: SE must act once; take the plain network")
    found = Candidates(model, placement, example)
    candidates = list(found.all())
    if at is not None:
        candidates = _at(model, placement, candidates, patterns)
    elif not candidates:
        raise ValueError(_none(model, placement, found.refused))
    sites = _sites(model, placement, candidates, example)
    return sites if stages is None else _in_stages(sites, set(numbers))


def _none(model: nn.Module, placement: str, refused: dict[str, str]) -> str:
    """Return the error message for a network without sites of this placement."""
    kind = type(model).__name__
    if refused:
        name, why = next(iter(refused.items()))
        return (
            f"found no residual units in {kind}: {name!r} ({type(model.get_submodule(name)).__name__}) has the "
            f"children of one, but {why}. Name modules with at=[...]"
        )
    if any(family_of(block) for block in model.modules()):
        return (
            f"placement {placement!r} is only in residual units relu(branch(x) + skip(x)), and {kind} has none; use "
            f"'standard', or name modules with at=[...]"
        )
    return (
        f"found no residual units in {kind}: searched for blocks with the children "
        + " or ".join(f"({' '.join(unit.children)})" for unit in UNITS)
        + " in this order of definition, and `downsample`. In another network, name modules with at=[...]."
    )


def _at(model: nn.Module, placement: str, candidates: list[Candidate], patterns: list[str]) -> list[Candidate]:
    """Return the matching candidates in the network's order, then matching modules that are not sites."""
    if not patterns:
        raise ValueError("at= is empty: name sites, units or modules, or omit it to use all sites")
    picked: set[Candidate] = set()
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
            f"at={sorted(others)} are not in residual units, and placement {placement!r} is only for residual units; "
            f"use standard, pre or post for the output or input of a module"
        )
    side = "input" if placement == "pre" else "output"
    others = dict(first_or_last_step(name, module, side) for name, module in others.items())
    return [c for c in candidates if c in picked] + [Candidate(n, attachment(m, side), n) for n, m in others.items()]


def _sites(model: nn.Module, placement: str, candidates: list[Candidate], example: Example | None) -> list[Site]:
    """Convert candidates to sites; unknown channels and stages come from a run."""
    modules = {c.name: model.get_submodule(c.name) for c in candidates if c.how != "skip"}
    declared = {
        c.name: declared_channels(c.name, modules[c.name], _side(c))
        for c in candidates
        if example is None and c.channels is None and c.first_stage is None
    }
    needed = None in declared.values() or any(c.first_stage is not None for c in candidates)
    maps = maps_of(model, example) if example is not None else maps_on_meta(model) if needed else _extra(model)
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    sites = []
    for c in candidates:
        channels, stage = c.channels or declared.get(c.name), c.stage
        seen = None if maps is None else maps.at(c.unit if c.how == "skip" else c.name, _side(c))
        if channels is None:
            module = modules[c.name]
            channels, run = channels_and_stage(names[module], module, _side(c), seen, c.first_stage or 0)
            # Without an example the stride comes from a generated image, which is valid only for families.
            stage = run if stage is None and (example is not None or c.first_stage is not None) else stage
        elif seen is not None:
            module = modules[c.name] if c.name in modules else model.get_submodule(c.unit)
            refuse_repeated(names[module], module, seen)
        sites.append(Site(c.name, channels, stage, c.how, placement, c.unit))
    return sites


def _side(candidate: Candidate) -> str:
    return "input" if candidate.how == "input" else "output"


def _extra(model: nn.Module) -> Maps | None:
    """Run the network, if possible, to find modules that are called several times."""
    names = [module for _, module in model.named_modules(remove_duplicate=False)]
    if len(names) == len(set(names)) and all(is_trusted(module) for module in set(names)):
        return None
    try:
        return maps_on_meta(model)
    except ValueError:
        return None


def _in_stages(sites: list[Site], stages: set[int]) -> list[Site]:
    unknown = [site.name for site in sites if site.stage is None]
    if unknown:
        raise ValueError(f"the stage of {unknown[0]!r} is unknown: give example=, an input of the network")
    there = sorted({site.stage for site in sites if site.stage is not None})
    if not stages or not stages <= set(there):
        raise ValueError(f"invalid stages={sorted(stages)}: this network has the stages {there}")
    return [site for site in sites if site.stage in stages]
