"""Siblings of units whose layers one forward runs: those in lists, and those of a `torch.fx.GraphModule`."""

import re
from collections.abc import Collection, Iterator

from senet.graph.operations import Call, Operation
from senet.insertion.traced.arms import attends
from senet.insertion.traced.flow import Flow, is_convolution
from senet.insertion.traced.joins import Arm
from senet.insertion.traced.places import end_of
from senet.insertion.traced.unit import Unit

__all__ = ["listed_siblings"]


def listed_siblings(flow: Flow, units: list[Unit], joined: Collection[int] = ()) -> Iterator[Unit]:
    """Yield chains of layers in which nothing joins, with the names of a residual unit's but for its number.

    Examples are inverted residuals with a stride, of layers `self.expand[i]`, `self.depthwise[i]`, `self.project[i]`,
    of `self.blocks[i]["expand"]`, or of `blocks.3.conv.0`, `blocks.3.conv.1`, which a graph calls without their block.
    A chain may lack the first layers of the unit.

    Args:
        flow: of the run.
        units: of the network.
        joined: the numbers of all joined values, those that are no units included.
    """
    taken = 0
    for unit in units:
        taken |= flow.bit(unit.end)
        for arm in (unit.branch, unit.skip):
            taken |= 0 if arm is None else arm.own
    seen: set[str] = set()
    for unit in units:
        alone = unit.call is not None and sum(unit.call is other.call for other in units) == 1
        layers = [] if alone or unit.rule != "residual" else _layers(flow, unit)
        last = re.compile(re.escape(layers[-1]).replace(r"\*", "([0-9]+)")) if layers else None
        for call in flow.trace.calls if last is not None else ():
            match = None if last is None else last.fullmatch(call.name)
            if match is None or call.name in seen or not flow.once(call):
                continue
            seen.add(call.name)
            branch = _chain(flow, call, layers[:-1], match.groups())
            if branch is None or taken & branch.own or attends(flow, branch.operations):
                continue
            if not any(value.number in joined for value in flow.members(branch.own)):
                yield Unit("sibling", unit.call, branch.end, branch=branch)


def _layers(flow: Flow, unit: Unit) -> list[str]:
    """Return the names of a branch's convolutions and of the module that ends it, with `*` in place of numbers.

    These are all numbers, or those of the block around all layers where the rest differs; without any, no names.
    """
    assert unit.branch is not None
    place = end_of(flow, unit.end, unit.call, unit.branch.own)
    calls = [flow.trace.calls[op.call] for op in unit.branch.convolutions if op.call is not None]
    if place is None or len(calls) < 2:
        return []
    parts = [call.name.split(".") for call in (*calls, place.call)]
    numbers = {tuple(filter(str.isdigit, part)) for part in parts}
    if len(numbers) == 1:
        return [".".join(map(_any_number, part)) for part in parts] if () not in numbers else []
    common = [len(set(column)) == 1 for column in zip(*(part[:-1] for part in parts), strict=False)]
    shared = parts[0][: common.index(False) if False in common else len(common)]
    block = max((place + 1 for place, part in enumerate(shared) if part.isdigit()), default=0)
    return [".".join([*map(_any_number, part[:block]), *part[block:]]) for part in parts] if block else []


def _any_number(part: str) -> str:
    return "*" if part.isdigit() else part


def _chain(flow: Flow, last: Call, names: list[str], numbers: tuple[str, ...]) -> Arm | None:
    """Return the layers with some names and numbers up to a module; None unless they are all of one chain."""
    layers: list[Operation] = []
    for name in names:
        rest = iter(numbers)
        calls = flow.trace.calls_of(".".join(next(rest) if part == "*" else part for part in name.split(".")))
        layers += [op for op in flow.trace.operations if is_convolution(op) and op.call in {c.index for c in calls}]
    if len(layers) < 2 or last.given is None or not flow.is_map(last.given):
        return None
    before = layers[0].inputs[0]
    own = flow.ancestors(last.given) & ~flow.ancestors(before)
    operations = flow.operations(own)
    whole = before not in flow.trace.inputs and [op for op in operations if is_convolution(op)] == layers
    return Arm(last.given, own, tuple(operations)) if whole else None
