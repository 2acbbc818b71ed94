"""Choose sites by name and stage, and describe those of known blocks and of modules named by `at`."""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from torch import nn

from senet.insertion.attachment import attachment, first_or_last_step
from senet.insertion.candidates import Candidate
from senet.insertion.network_runs import NetworkRuns
from senet.insertion.site import Site
from senet.insertion.site_maps import channels_and_stage, declared_channels, refuse_repeated
from senet.nn.recalibration import Side
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError, unknown_name

__all__ = ["build_sites", "in_stages", "select_by_name"]


def select_by_name(
    model: nn.Module,
    placement: str,
    candidates: list[Candidate],
    traced: list[Site],
    patterns: list[str],
    idle: Collection[Candidate] = (),
) -> tuple[list[Candidate], list[Site], list[Candidate]]:
    """Return the matching candidates and traced sites in their order, and matching modules that are not sites.

    Args:
        model: the network.
        placement: of SE.
        candidates: in known blocks.
        traced: the other sites.
        patterns: names or globs of sites, units or modules.
        idle: candidates that do not run.

    Raises:
        ValueError: a pattern matches nothing, or modules that are no place for SE.
    """
    if not patterns:
        raise ValueError(f"{argument('at')} is empty: name sites, units or modules, or omit it to use all sites")
    places: list[Candidate | Site] = [*candidates, *traced]
    picked: set[Candidate | Site] = set()
    others: dict[str, nn.Module] = {}
    for pattern in patterns:
        among_sites = {p for p in places if fnmatchcase(p.name, pattern) or fnmatchcase(p.unit, pattern)}
        among_modules = {n: m for n, m in model.named_modules() if n and fnmatchcase(n, pattern)}
        if not among_sites and not among_modules:
            names = [p.name for p in places] or [n for n, _ in model.named_modules() if n]
            raise ValueError(
                unknown_name(f"site or module in {argument('at')}", pattern, names) + f" The first one is {names[0]!r}."
            )
        if not among_sites:
            _refuse_idle(model, pattern, idle)
        picked |= among_sites
        others |= {} if among_sites else among_modules
    if others and placement in ("identity", "conv3x3"):
        raise ValueError(
            f"{argument('at', sorted(others))}: not in residual units, and placement {placement!r} is only for "
            f"residual units; use standard, pre or post for the output or input of a module"
        )
    side: Side = "input" if placement == "pre" else "output"
    others = dict(first_or_last_step(name, module, side) for name, module in others.items())
    named = [Candidate(n, attachment(m, side), n, rule="at") for n, m in others.items()]
    return [c for c in candidates if c in picked], [s for s in traced if s in picked], named


def _refuse_idle(model: nn.Module, pattern: str, idle: Iterable[Candidate]) -> None:
    """Check that a pattern matches no site in a part of the network that does not run."""
    for c in idle:
        if fnmatchcase(c.name, pattern) or fnmatchcase(c.unit, pattern):
            raise ValueError(
                f"{c.name!r} does not run when {type(model).__name__} runs in evaluation, so SE there would have no "
                f"effect; name another module, or insert SE into that part alone"
            )


def build_sites(runs: NetworkRuns, placement: str, candidates: list[Candidate]) -> list[Site]:
    """Convert candidates to sites; unknown channels and stages come from a run."""
    model, example = runs.model, runs.example
    modules = {c.name: model.get_submodule(c.name) for c in candidates if c.how != "skip"}
    declared = {
        c.name: declared_channels(c.name, modules[c.name], _side(c))
        for c in candidates
        if example is None and c.channels is None and c.first_stage is None
    }
    needed = None in declared.values() or any(c.first_stage is not None for c in candidates)
    maps = runs.maps if needed or runs.run_unless_known() else None
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
        spatial = None if seen is None or not seen.shape else seen.shape[2:]
        sites.append(
            Site(
                name=c.name,
                channels=channels,
                stage=stage,
                how=c.how,
                placement=placement,
                unit=c.unit,
                rule=c.rule,
                spatial=spatial,
            )
        )
    return sites


def _side(candidate: Candidate) -> Side:
    return "input" if candidate.how == "input" else "output"


def in_stages(runs: NetworkRuns, sites: list[Site], stages: set[int]) -> list[Site]:
    """Return the sites in some stages.

    Raises:
        ValueError: a stage is unknown, or there is no such stage.
    """
    unknown = [site.name for site in sites if site.stage is None]
    if unknown and runs.example is None:
        raise MissingExampleError(
            f"the stage of {unknown[0]!r} is unknown: give {argument('example')}, an input of the network"
        )
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} has no stage: its map is made from an input without spatial axes, so it has no stride; "
            f"choose sites with {argument('at')}"
        )
    there = sorted({site.stage for site in sites if site.stage is not None})
    if not stages or not stages <= set(there):
        raise ValueError(f"invalid {argument('stages', sorted(stages))}: this network has the stages {there}")
    return [site for site in sites if site.stage in stages]
