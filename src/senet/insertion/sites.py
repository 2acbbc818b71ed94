"""Find the sites of a network for a placement: in known blocks, in a recorded run, or at modules named by `at`."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from math import prod
from typing import get_args

from torch import nn

from senet.graph.example_inputs import CONVOLUTIONS, Example
from senet.graph.se_modules import own_se
from senet.insertion.candidates import Candidate, Candidates
from senet.insertion.network_checks import check_forward, check_network
from senet.insertion.network_runs import NetworkRuns
from senet.insertion.selection import build_sites, in_stages, select_by_name
from senet.insertion.site import Excluded, Finding, Site, module_order, patterns_of
from senet.insertion.traced import find_in_trace, suggest
from senet.insertion.traced.flow import is_own_convolution
from senet.insertion.wrappers import refuse_wrapped
from senet.nn.inserted_se import find_inserted_se
from senet.utils.arguments import argument, in_python_or
from senet.utils.choices import Placement, check_choice
from senet.utils.errors import MissingExampleError

__all__ = ["PLACEMENTS", "Site", "explain", "find_sites", "table_sites"]

PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
# The order in which placements are suggested.
_LIKELIEST: tuple[Placement, ...] = ("standard", "post", "pre", "conv3x3", "identity")


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

    In any other network, sites are where its branches join in one run, see `Site.rule`.

    Args:
        model: a convolutional network, or any network with `at`.
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
        ValueError: an unknown placement; a network that is quantized, or has lazy modules without parameters; a network
            without convolutional units, and without `at`; a placement that its units lack; a network with SE of its
            own, or with inserted SE where a run is needed; a stage that does not exist; a pattern of `at` without
            match; channels or stages that are unknown without `example`; an example on which the network does not run;
            a container; a map without spatial axes or with channels on another axis than 1, or a module that runs
            several times.

    Examples:
        >>> model = senet.create_model("resnet20")
        >>> sites = senet.find_sites(model, "standard", stages=3)
        >>> [(site.name, site.channels) for site in sites]
        [('layer2.0.bn2', 32), ('layer2.1.bn2', 32), ('layer2.2.bn2', 32)]
    """
    return explain(model, placement, stages=stages, at=at, example=example).sites


def explain(
    model: nn.Module,
    placement: Placement = "standard",
    *,
    stages: int | Collection[int] | None = None,
    at: str | Iterable[str] | None = None,
    example: Example | None = None,
) -> Finding:
    """Return the sites that `find_sites` returns, and the modules without one with the reason, if the network was run.

    Args and Raises: as for `find_sites`.
    """
    check_network(model)
    check_choice("placement", placement, Placement)
    numbers = list(stages) if isinstance(stages, Iterable) else [] if stages is None else [stages]
    if not all(isinstance(stage, int) and not isinstance(stage, bool) for stage in numbers):
        raise TypeError(f"stages must be whole numbers such as {{2, 3}}, got {stages!r}")
    patterns = patterns_of(at)
    own = own_se(model, example)
    if own is not None:
        name = own.name or type(model).__name__
        raise ValueError(f"{name} is SE of the network's own: SE must act once; take the plain network")
    known = Candidates(model, placement, example)
    runs = NetworkRuns(model, example)
    candidates, idle = _running(runs, known)
    traced, why = (Finding(), "") if _name_layers(model, placement, patterns) else _traced(placement, known, runs)
    others: list[Candidate] = []
    if at is not None:
        candidates, sites, others = select_by_name(model, placement, candidates, traced.sites, patterns, idle)
    elif candidates or traced.sites:
        if traced.sites:
            _refuse_inserted(model)
        _refuse_without_module(placement, traced)
        candidates, traced = _with_effect(runs, candidates, traced)
        sites = traced.sites
    elif why:
        check_forward(model)
        refuse_wrapped(model)
        ways = _suggested(runs, placement)
        raise MissingExampleError(why + _or(f"give {argument('example')}, an input of the network", *ways))
    else:
        _refuse_inserted(model)
        raise ValueError(_none(runs, placement, known, traced))
    order = module_order(model)
    sites = [*build_sites(runs, placement, candidates), *sites]
    sites.sort(key=lambda site: order[site.name if site.name in order else site.unit])  # an empty skip is no module
    sites += build_sites(runs, placement, others)
    found = sites if stages is None else in_stages(runs, sites, set(numbers))
    return replace(traced, sites=found)


def _running(runs: NetworkRuns, known: Candidates) -> tuple[list[Candidate], list[Candidate]]:
    """Return the candidates, and those that a run does not reach; the known blocks there are then none."""
    candidates = list(known.all())
    if not known.blocks or not runs.run_unless_known():
        return candidates, []
    known.blocks = [name for name in known.blocks if runs.ran(name)]
    idle = [c for c in candidates if not runs.ran(c.unit if c.how == "skip" else c.name)]
    return [c for c in candidates if c not in idle], idle


def _with_effect(runs: NetworkRuns, candidates: list[Candidate], traced: Finding) -> tuple[list[Candidate], Finding]:
    """Return the candidates on which the network's outputs depend, other than through a gate; the rest is excluded."""
    if not runs.has_run:
        return candidates, traced
    reasons = runs.effects.of_modules({candidate.unit for candidate in candidates})
    order = module_order(runs.model)
    kept = [e for e in traced.excluded if e.name not in reasons]
    kept += [Excluded(name, reason) for name, reason in reasons.items()]
    finding = replace(traced, excluded=sorted(kept, key=lambda e: order[e.name]))
    return [c for c in candidates if c.unit not in reasons], finding


def _refuse_without_module(placement: str, traced: Finding) -> None:
    """Check that SE would not be in some residual units only: most skips are the input itself, without a module."""
    lacking = traced.without_module
    if placement == "identity" and lacking:
        named = next((f", such as {name!r}" for name in lacking if name), "")
        raise ValueError(
            f"placement 'identity' needs a projection in each skip; residual units whose skip is the input itself: "
            f"{len(lacking)}{named}. Use another placement, or name the modules of the skips with "
            f"{argument('at')} and {argument('placement', 'standard')}"
        )


def table_sites(model: nn.Module) -> list[Site]:
    """Return the sites of the placement "standard" in blocks that the tables know, without a search of the rest.

    Raises:
        ValueError: such a block is refused, see `find_sites`.
    """
    runs = NetworkRuns(model, None)
    return build_sites(runs, "standard", _running(runs, Candidates(model, "standard", None))[0])


def _traced(placement: str, known: Candidates, runs: NetworkRuns) -> tuple[Finding, str]:
    """Return the sites outside of known blocks, and why the network was not run; empty unless a run was needed."""
    if not _has_more(runs.model, known.blocks):
        return Finding(), ""
    try:
        run = runs.whole
    except ValueError as error:
        if runs.example is not None:
            check_forward(runs.model)
            raise
        return Finding(), str(error)
    return find_in_trace(runs.model, run, runs.effects, placement, known.blocks), ""


def _refuse_inserted(model: nn.Module) -> None:
    """Check that a search by a run finds the network as it was before SE."""
    found = find_inserted_se(model)
    if found:
        remedy = in_python_or("remove it first with senet.remove(model)", "give the plain network")
        raise ValueError(f"{found[0].name!r} already has SE; {remedy}, or name further modules with {argument('at')}")


def _name_layers(model: nn.Module, placement: str, patterns: Collection[str]) -> bool:
    """Return whether `at` names modules without children only: SE acts there, whatever a run would show."""
    matching = [[m for n, m in model.named_modules() if n and fnmatchcase(n, pattern)] for pattern in patterns]
    layers = all(modules and not any(list(m.children()) for m in modules) for modules in matching)
    return bool(patterns) and layers and placement not in ("identity", "conv3x3")


def _has_more(model: nn.Module, blocks: Collection[str]) -> bool:
    """Return whether a network has several convolutions outside of known blocks, those of its stem not counted.

    Without known blocks transposed convolutions count, too, as in the generator of a GAN.
    """
    if not blocks:
        kind = nn.modules.conv._ConvNd
        return any(isinstance(module, kind) or is_own_convolution(module) for module in model.modules())
    prefixes = tuple(f"{name}.".removeprefix(".") for name in blocks)
    names = [name for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)]
    inside = [index for index, name in enumerate(names) if name.startswith(prefixes)] if prefixes else []
    return sum(not name.startswith(prefixes) for name in names[inside[0] :]) > 1 if inside else bool(names)


def _suggested(runs: NetworkRuns, placement: Placement, known: Candidates | None = None) -> list[str]:
    """Return what finds sites in a network, for a message: another placement, and modules for `at=`.

    Args:
        runs: of the network.
        placement: at which no sites were found.
        known: the blocks of the tables; None if the network did not run.
    """
    # Only residual units have the other placements.
    where: Placement = placement if placement in ("standard", "pre", "post") else "standard"

    def works(patterns: list[str]) -> bool:
        try:
            build_sites(runs, where, select_by_name(runs.model, where, [], [], patterns)[2])
        except ValueError:
            return False
        return True

    ways = (
        []
        if known is None
        else [f"use {argument('placement', other)}" for other in _others(runs, placement, known)[:1]]
    )
    run = runs.whole if runs.has_run else None
    named, only = suggest(runs.model, works, "input" if where == "pre" else "output", run)
    if named and not (only and ways):
        texts = " or ".join(argument("at", globs[0] if len(globs) == 1 else globs) for globs in named)
        which = ", the only ones with maps (N, C, *spatial):" if only else ", such as"
        with_placement = f" with {argument('placement', where)}" if where != placement else ""
        ways.append(f"name modules{with_placement}{which} {texts}")
    return ways


def _larger_example(runs: NetworkRuns) -> list[str]:
    """Return the remedy where all maps of the example have one position."""
    maps = [value.shape for value in runs.whole.inputs if len(value.shape) > 2] if runs.has_run else []
    alone = bool(maps) and all(prod(shape[2:]) == 1 for shape in maps) and runs.example is not None
    return [f"give a larger {argument('example')} than {tuple(maps[0])}, whose maps have one position"] if alone else []


def _or(*ways: str) -> str:
    """Return the end of a message with what to do."""
    return "; " + ", or ".join(ways) if ways else ""


def _others(runs: NetworkRuns, placement: Placement, known: Candidates) -> list[Placement]:
    """Return the other placements that find sites."""
    found: list[Placement] = []
    for other in _LIKELIEST:
        if other == placement:
            continue
        with suppress(ValueError):
            finding, _ = _traced(other, known, runs)
            _refuse_without_module(other, finding)
            if finding.sites or _running(runs, Candidates(runs.model, other, runs.example))[0]:
                found.append(other)
    return found


def _has_sites(module: nn.Module) -> bool:
    """Return whether a module of a network has sites by itself."""
    try:
        return bool(explain(module).sites)
    except ValueError:
        return False


def _none(runs: NetworkRuns, placement: Placement, known: Candidates, traced: Finding) -> str:
    """Return the error message for a network without sites of this placement."""
    model, kind = runs.model, type(runs.model).__name__
    if traced.repeated and _has_sites(model.get_submodule(traced.repeated)):
        return (
            f"the units of {kind} are in {traced.repeated!r}, which is called several times in one forward pass; "
            f"insert SE there, and its calls share it: {in_python_or('', 'in Python, ')}"
            f"senet.insert(model.get_submodule({traced.repeated!r}))"
        )
    ways = [*_larger_example(runs), *_suggested(runs, placement, known)]
    if traced.attention:
        own = type(model.get_submodule(traced.attention)).__name__
        return (
            f"{traced.attention} is attention of the network's own ({own}), and SE would scale the same channels "
            f"again{_or('take the plain network', *ways)}"
        )
    if known.refused:
        name, why = next(iter(known.refused.items()))
        return (
            f"found no units in {kind}: {name!r} ({type(model.get_submodule(name)).__name__}) has the children of a "
            f"residual unit, but {why}{_or(*ways)}"
        )
    if known.blocks or placement != "standard":
        return (
            f"placement {placement!r} is only in residual units relu(branch(x) + skip(x)), and {kind} has none with "
            f"a module there{_or(*ways)}"
        )
    reasons = "; ".join(f"{e.name!r}: {e.reason}" for e in traced.excluded[:3])
    return f"found no convolutional units in {kind}{reasons and f' ({reasons})'}{_or(*ways)}"
