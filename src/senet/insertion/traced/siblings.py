"""Units without a join: siblings of units that have one."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from torch import nn

from senet.graph.operations import Call, Operation, Value
from senet.insertion.site import Rule
from senet.insertion.traced.arms import attends
from senet.insertion.traced.flow import Flow, is_convolution
from senet.insertion.traced.joins import Arm
from senet.insertion.traced.unit import Unit, pattern

__all__ = ["siblings"]


def siblings(flow: Flow, units: list[Unit], joined: Collection[int] = ()) -> Iterator[Unit]:
    """Yield modules in which nothing joins, with the class of a unit, or its name but for numbers.

    Examples are inverted residuals with a stride, and the first block of a network with depthwise convolutions. Before
    all units, a name counts for nothing where a layer of the stem has it.

    Args:
        flow: of the run.
        units: of the network.
        joined: the numbers of all joined values, those that are no units included.
    """
    calls = [unit.call for unit in units if unit.call is not None]
    kinds = {type(unit.call.module): unit for unit in units if unit.call is not None}
    places = {pattern(unit.name): unit for unit in units if unit.name}
    ends = 0
    for known in units:
        ends |= flow.bit(known.end)
    stem: set[str] = set()  # names of layers before all units, but for numbers
    for call in _free(flow, calls, units):
        operations = flow.operations_in(call)
        convolutions = [op for op in operations if is_convolution(op)]
        alike = None if type(call.module) is nn.Sequential else kinds.get(type(call.module))
        place = pattern(call.name)
        first = call.given is None or not flow.ancestors(call.given) & ends
        if alike is None and len(convolutions) > 1 and not (first and place in stem):
            alike = places.get(place)
        if first and convolutions and (alike is None or call.taken in flow.trace.inputs):
            stem.add(place)
        joins = call.taken in flow.trace.inputs or (call.given is not None and call.given.number in joined)
        if alike is not None and convolutions and not joins and not attends(flow, operations):
            unit = _chain(flow, "sibling", call, operations)
            if unit is not None and not _is_head(flow, unit.end):
                yield unit if alike.branch is None else replace(unit, branch=_arm(flow, unit, operations))


def _free(flow: Flow, calls: list[Call], units: list[Unit]) -> list[Call]:
    """Return the calls that are not a unit, in one, or around one."""
    taken = {call.index for call in calls}
    around = {outer.index for unit in units for outer in flow.trace.enclosing(_index(flow, unit))}
    return [
        call
        for call in flow.trace.calls
        if call.index not in around and flow.once(call) and not any(c.index in taken for c in _enclosing(flow, call))
    ]


def _index(flow: Flow, unit: Unit) -> int | None:
    maker = flow.trace.producer(unit.end)
    return unit.call.index if unit.call is not None else None if maker is None else maker.call


def _enclosing(flow: Flow, call: Call) -> list[Call]:
    return flow.trace.enclosing(call.index)


def _arm(flow: Flow, unit: Unit, operations: list[Operation]) -> Arm:
    own = 0
    for operation in operations:
        for value in operation.outputs:
            own |= flow.bit(value) if flow.depends(value) else 0
    return Arm(unit.end, own & flow.ancestors(unit.end), tuple(operations))


def _chain(flow: Flow, rule: Rule, call: Call, operations: list[Operation]) -> Unit | None:
    """Return the unit that a module is, if it returns a map that its convolutions made."""
    made = {value.number for op in operations for value in op.outputs}
    if call.given is None or not flow.is_map(call.given) or call.given.number not in made:
        return None
    return Unit(rule, call, call.given)


def _is_head(flow: Flow, end: Value) -> bool:
    """Return whether a map is the network's last one, and none of several that it returns, as a pyramid's."""
    others = [value for value in flow.trace.outputs if value != end and flow.is_map(value)]
    return flow.is_last(end) and not any(flow.ancestors(end) & flow.bit(value) for value in others)
