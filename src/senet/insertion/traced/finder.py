"""Sites of a placement from one recorded run of a network."""

from collections.abc import Collection

from torch import nn

from senet.graph.operations import Trace
from senet.graph.stages import octaves, stage_of_stride
from senet.insertion.site import Excluded, Finding, Site
from senet.insertion.traced.blocks import blocks, siblings
from senet.insertion.traced.exclusions import excluded
from senet.insertion.traced.flow import Flow
from senet.insertion.traced.places import Place, place_of
from senet.insertion.traced.units import Unit, units

__all__ = ["find_in_trace"]


def find_in_trace(model: nn.Module, trace: Trace, placement: str, known: Collection[str] = ()) -> Finding:
    """Find the sites of a placement in a run.

    Args:
        model: the network.
        trace: of a run of it.
        placement: one of `PLACEMENTS`.
        known: names of units that the tables know, which are not searched.

    Returns:
        sites outside of known units, and modules that have none.
    """
    flow = Flow(trace)
    found, _ = units(flow)
    found = [unit for unit in found if not _in(known, unit, flow)]
    found += siblings(flow, found)
    if not found and not known:
        found = list(blocks(flow))
    sites: dict[str, Site] = {}
    missing = []
    for unit in found:
        place = place_of(flow, unit, placement)
        if place is None or not flow.is_map(place.value):
            missing.append(Excluded(unit.name, f"{unit.rule}: it has no module at the placement {placement!r}"))
        else:
            sites.setdefault(place.call.name, _site(flow, unit, place, placement))
    order = {name: number for number, (name, _) in enumerate(model.named_modules())}
    names = [*known, *(unit.name for unit in found)]
    others = excluded(flow, model, names, sites)
    return Finding(
        sorted(sites.values(), key=lambda site: order[site.name]),
        sorted((*(e for e in missing if e.name), *others), key=lambda e: order[e.name]),
    )


def _in(known: Collection[str], unit: Unit, flow: Flow) -> bool:
    """Return whether a unit is a known one, in one, or around one."""
    maker = flow.trace.producer(unit.end)
    inner = unit.call.index if unit.call is not None else None if maker is None else maker.call
    names = {call.name for call in flow.trace.enclosing(inner)}
    if names & set(known):
        return True
    return bool(unit.name) and any(name.startswith(f"{unit.name}.") for name in known)


def _site(flow: Flow, unit: Unit, place: Place, placement: str) -> Site:
    image = next((value for value in flow.trace.inputs if len(value.shape) >= 3), None)
    spatial = place.value.shape[2:]
    stride = None if image is None else octaves(image.shape[2:], spatial)
    stage = None if stride is None else stage_of_stride(stride)
    name = place.call.name
    return Site(name, place.value.shape[1], stage, place.how, placement, unit.name or name, unit.rule, spatial)
