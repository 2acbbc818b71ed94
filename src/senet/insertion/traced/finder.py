"""Sites of a placement from one recorded run of a network."""

from collections.abc import Collection, Iterable, Mapping

from torch import nn

from senet.graph.operations import Call, Trace
from senet.graph.shapes import Strides
from senet.graph.stages import stage_of_stride
from senet.insertion.attachment import attachment
from senet.insertion.site import Excluded, Finding, Site, module_order
from senet.insertion.traced.arms import attends, gates_map
from senet.insertion.traced.blocks import joins_tokens, plain_blocks
from senet.insertion.traced.effects import Effects
from senet.insertion.traced.exclusions import excluded
from senet.insertion.traced.flow import Flow, is_convolution
from senet.insertion.traced.joins import Join, lowers_resolution
from senet.insertion.traced.listed import listed_siblings
from senet.insertion.traced.places import Place, place_of
from senet.insertion.traced.siblings import siblings
from senet.insertion.traced.unit import Unit, kind, repeated_kinds
from senet.insertion.traced.units import units

__all__ = ["find_in_trace"]


def find_in_trace(
    model: nn.Module, trace: Trace, effects: Effects, placement: str, known: Collection[str] = ()
) -> Finding:
    """Find the sites of a placement in a run.

    Args:
        model: the network.
        trace: of a run of it.
        effects: of that run.
        placement: one of `PLACEMENTS`.
        known: names of units that the tables know, which are not searched.

    Returns:
        sites outside of known units, and modules that have none.
    """
    flow = Flow(trace)
    joined = units(flow)
    begun = _without_stem(joined.units)
    stem = [unit for unit in joined.units if not any(unit is other for other in begun)]
    found = [unit for unit in _without_head(flow, begun) if not _in(known, unit, flow)]
    found += siblings(flow, [unit for unit in found if not effects.of([unit.end])], joined.values)
    found += listed_siblings(flow, found, joined.values)
    without_effect = {unit.name: reason for unit in found if (reason := effects.of([unit.end]))}
    found = [unit for unit in found if not effects.of([unit.end])]
    attention = "" if found or known else _attention(flow, joined.attention)
    mixes = bool(known or attention or joined.with_skip or (found and joined.attention)) or joins_tokens(flow)
    plain = [] if mixes else plain_blocks(flow, found, joined.units if found else ())
    found += [unit for unit in plain if not effects.of([unit.end])]
    sites: dict[str, Site] = {}
    strides = Strides(trace, flow.axes)
    missing = without_effect | {unit.name: "stem: the only unit of its kind, before repeated ones" for unit in stem}
    placed: list[Unit] = []
    without_module: list[str] = []
    repeated: list[str] = []
    relative: dict[type[nn.Module], tuple[str, type[nn.Module]]] = {}  # name and class of the place in units of a class
    for unit in found:
        place = _as_in_siblings(flow, unit, relative) or place_of(flow, unit, placement)
        if place is None or not flow.is_map(place.value):
            shared = _shared(flow, unit)
            if shared is not None:
                repeated.append(shared.name)
                reason = f"{shared.name!r} is called several times with the same weights"
            else:
                reason = f"it has no module at the placement {placement!r}"
                without_module += [unit.name] if unit.rule == "residual" else []
            missing.setdefault(unit.name, f"{unit.rule}: {reason}")
        else:
            if unit.rule != "sibling" and unit.name and place.call.name.startswith(f"{unit.name}."):
                assert unit.call is not None
                part = place.call.name.removeprefix(f"{unit.name}.")
                relative.setdefault(type(unit.call.module), (part, type(place.call.module)))
            placed.append(unit)
            sites.setdefault(place.call.name, _site(strides, unit, place, placement))
    order = module_order(model)
    names = [*known, *(unit.name for unit in found)]
    others = excluded(flow, effects, model, [*names, *sites], placed, joined.no_units)
    others = [other for other in others if other.name not in missing]
    return Finding(
        sorted(sites.values(), key=lambda site: order[site.name]),
        sorted((*(Excluded(n, r) for n, r in missing.items() if n), *others), key=lambda e: order[e.name]),
        without_module,
        attention,
        repeated[0] if len(set(repeated)) == 1 and len(repeated) == len(found) else "",
    )


def _without_stem(found: list[Unit]) -> list[Unit]:
    """Return the units without those of the stem: the only ones of their kind, with a stride, before repeated ones."""

    def has_stride(unit: Unit) -> bool:
        last = unit.end if unit.call is None or unit.call.given is None else unit.call.given
        return unit.join is not None and lowers_resolution(unit.join.fork, last)

    repeated = repeated_kinds(found)
    first = next((place for place, unit in enumerate(found) if kind(unit) in repeated), 0)
    return [unit for place, unit in enumerate(found) if place >= first or not has_stride(unit)]


def _without_head(flow: Flow, found: list[Unit]) -> list[Unit]:
    """Return the units without those that make the network's one map: no layer follows, and all others are wider.

    The last unit of an image-to-image network makes its image. That of a feature extractor is no narrower than others.
    """
    if sum(map(flow.is_map, flow.trace.outputs)) != 1:
        return found
    last = [unit for unit in found if flow.is_last(unit.end)]
    others = [_width(unit) for unit in found if not any(unit is one for one in last)]
    made = [unit for unit in last if others and _width(unit) < min(others)]
    return [unit for unit in found if not any(unit is one for one in made)]


def _width(unit: Unit) -> int:
    return (unit.end if unit.join is None or unit.rule != "dense" else unit.join.output).shape[1]


def _attention(flow: Flow, joins: Iterable[Join]) -> str:
    """Return the name of the first attention in the arms of joins; "" without one."""
    for operation in (
        op
        for join in joins
        for arm in join.arms
        for op in arm.operations
        if attends(flow, [op]) or gates_map(flow, [op])
    ):
        for call in flow.trace.enclosing(operation.call):
            if call.name and next(call.module.parameters(), None) is not None:
                return call.name
    return ""


def _shared(flow: Flow, unit: Unit) -> Call | None:
    """Return the outermost call around a unit's end whose module is called several times."""
    maker = flow.trace.producer(unit.end)
    start = unit.call.index if unit.call is not None else None if maker is None else maker.call
    around = [call for call in flow.trace.enclosing(start) if call.name and not flow.once(call)]
    return around[-1] if around else None


def _as_in_siblings(
    flow: Flow, unit: Unit, relative: Mapping[type[nn.Module], tuple[str, type[nn.Module]]]
) -> Place | None:
    """Return the place in a unit without a join where units of its class have theirs, if it ends the unit there, too.

    A unit with an expansion has another module of that name than one without.
    """
    known = relative.get(type(unit.call.module)) if unit.rule == "sibling" and unit.call is not None else None
    calls = flow.trace.calls_of(f"{unit.name}.{known[0]}") if known is not None else []
    calls = [call for call in calls if known is not None and type(call.module) is known[1]]
    if len(calls) != 1 or calls[0].given is None or not flow.ancestors(unit.end) & flow.bit(calls[0].given):
        return None
    after = flow.ancestors(unit.end) & ~flow.ancestors(calls[0].given)
    if any(is_convolution(operation) for operation in flow.operations(after)):
        return None
    return Place(calls[0], attachment(calls[0].module, "output"), calls[0].given)


def _in(known: Collection[str], unit: Unit, flow: Flow) -> bool:
    """Return whether a unit is a known one, in one, or around one."""
    maker = flow.trace.producer(unit.end)
    inner = unit.call.index if unit.call is not None else None if maker is None else maker.call
    names = {call.name for call in flow.trace.enclosing(inner)}
    if names & set(known):
        return True
    return bool(unit.name) and any(name.startswith(f"{unit.name}.") for name in known)


def _site(strides: Strides, unit: Unit, place: Place, placement: str) -> Site:
    octaves = strides.octaves(place.value)
    stage = None if octaves is None else stage_of_stride(octaves)
    name, spatial = place.call.name, place.value.shape[2:]
    return Site(
        name=name,
        channels=place.value.shape[1],
        stage=stage,
        how=place.how,
        placement=placement,
        unit=unit.name or name,
        rule=unit.rule,
        spatial=spatial,
    )
