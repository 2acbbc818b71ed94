"""Where branches of a run join: sums and concatenations, with the arms that lead there from their fork."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import log2, prod
from types import MappingProxyType

from senet.graph.operations import Operation, Value
from senet.insertion.traced.flow import Flow, in_series, is_convolution

__all__ = ["Arm", "Join", "changes_resolution", "joins", "lowers_resolution", "raises_resolution"]

_SUMS = ("add", "sub", "addcmul", "lerp")
# Steps of resolution (log2 of the length of an axis) that are borders lost or added, and not a stride.
_BORDER = 0.6


@dataclass(frozen=True)
class Arm:
    """What leads from the fork to one input of a join.

    Attributes:
        end: the value that the join reads.
        own: the set of values (see `Flow`) that are not also before the fork; 0 for an identity.
        operations: those that computed them.
    """

    end: Value
    own: int
    operations: tuple[Operation, ...]

    @cached_property
    def convolutions(self) -> list[Operation]:
        """Its convolutions."""
        return [operation for operation in self.operations if is_convolution(operation)]

    @cached_property
    def depth(self) -> int:
        """How many of its convolutions are in series."""
        return in_series(self.operations)


@dataclass(frozen=True)
class Join:
    """A sum or a concatenation of maps that depend on one value.

    Attributes:
        kind: "sum" or "concat".
        operation: the last one of several additions.
        output: the joined map.
        fork: the last value that all arms depend on.
        arms: in the order of the arguments.
    """

    kind: str
    operation: Operation
    output: Value
    fork: Value
    arms: tuple[Arm, ...]


def joins(flow: Flow) -> Iterator[Join]:
    """Yield the joins of a run, in the order in which they ran. Sums of sums in one forward are one join."""
    inner = _inner_sums(flow)
    parts = {operation.outputs[0].number for operation in inner.values()}
    for operation in flow.trace.operations:
        kind = "concat" if operation.name == "cat" else "sum"
        if not operation.outputs or operation.outputs[0].number in parts:
            continue
        ends = _sources(flow, operation, inner)
        if len(ends) < 2 or len({end.number for end in ends}) < 2:
            continue
        common = flow.ancestors(ends[0])
        for end in ends[1:]:
            common &= flow.ancestors(end)
        if not common:
            continue
        arms = []
        for end in ends:
            own = flow.ancestors(end) & ~common
            arms.append(Arm(end, own, tuple(flow.operations(own))))
        yield Join(kind, operation, operation.outputs[0], flow.last(common), tuple(arms))


def _sources(flow: Flow, operation: Operation, inner: Mapping[int, Operation] = MappingProxyType({})) -> list[Value]:
    """Return the maps that an operation joins; none if it is no join."""
    if not operation.outputs or not flow.is_map(operation.outputs[0]):
        return []
    output = operation.outputs[0]
    if operation.name == "cat":
        dim = operation.args[1] if len(operation.args) > 1 else operation.kwargs.get("dim", 0)
        sources = operation.inputs if dim % len(output.shape) == 1 else []
        return [value for value in sources if flow.is_map(value)] if all(map(flow.depends, sources)) else []
    values = operation.inputs if operation.name in _SUMS else flow.stacked_sums.get(output.number, [])
    found = []
    for value in values:
        if flow.depends(value) and value.shape == output.shape and flow.is_map(value):
            found += _sources(flow, inner[value.number], inner) if value.number in inner else [value]
    return found


def _inner_sums(flow: Flow) -> dict[int, Operation]:
    """Return the sums whose only reader is another sum in the same forward, by the number of the value that it reads.

    A factor may scale it in between, as in `0.5 * (a(x) + b(x)) + x`. Sums that a module returns are none, unless the
    module is called several times, as one that adds its inputs.
    """
    found = {}
    for operation in flow.trace.operations:
        if operation.name not in ("add", "sub") or len(_sources(flow, operation)) < 2:
            continue
        value, readers = operation.outputs[0], flow.trace.consumers(operation.outputs[0])
        while len(readers) == 1 and readers[0].name in ("mul", "div") and _scales(flow, readers[0], value):
            value = readers[0].outputs[0]
            readers = flow.trace.consumers(value)
        added = len(readers) == 1 and readers[0].name in ("add", "sub")
        if added and _forward(flow, readers[0]) == _forward(flow, operation) and not _returned(flow, operation, value):
            found[value.number] = operation
    return found


def _scales(flow: Flow, operation: Operation, value: Value) -> bool:
    """Return whether an operation multiplies a map by what does not depend on the input."""
    return [v for v in operation.inputs if flow.depends(v)] == [value] and operation.outputs[0].shape == value.shape


def _forward(flow: Flow, operation: Operation) -> int | None:
    """Return the innermost call around an operation in which a convolution ran."""
    return next((call.index for call in flow.trace.enclosing(operation.call) if flow.convolves(call)), None)


def _returned(flow: Flow, operation: Operation, value: Value) -> bool:
    """Return whether a module that is called once returns a sum, possibly scaled."""
    return any(flow.once(call) for one in (operation.outputs[0], value) for call in flow.given(one))


def changes_resolution(flow: Flow, join: Join) -> bool:
    """Return whether an arm leaves the resolutions between fork and join: it goes down and up again, or up and down.

    Such joins are the skips of a U-Net and the laterals of a feature pyramid. Values with one position, as in global
    pooling, do not count, nor does a part of an arm around which another one stays at the resolution.
    """
    ends = [octaves for octaves in map(_octaves, (join.fork, join.output)) if octaves is not None]
    if not ends:
        return False
    low, high = min(ends) - _BORDER, max(ends) + _BORDER
    rank = len(join.output.shape)

    def outside(value: Value) -> bool:
        octaves = _octaves(value) if len(value.shape) == rank and flow.is_map(value) else None
        return octaves is not None and not low <= octaves <= high

    for arm in join.arms:
        if not any(map(outside, flow.members(arm.own))):
            continue
        inside: set[int] = set()
        for operation in arm.operations:
            before = [value for value in operation.inputs if flow.depends(value)]
            if any(value.number in inside or not arm.own & flow.bit(value) for value in before):
                inside |= {value.number for value in operation.outputs if not outside(value)}
        if arm.end.number not in inside:
            return True
    return False


def raises_resolution(join: Join) -> bool:
    """Return whether the joined map is larger than the fork."""
    fork, output = _octaves(join.fork), _octaves(join.output)
    return fork is not None and output is not None and output > fork + _BORDER


def lowers_resolution(before: Value, after: Value) -> bool:
    """Return whether a map is smaller than one before it."""
    one, other = _octaves(before), _octaves(after)
    return one is not None and other is not None and other < one - _BORDER


def _octaves(value: Value) -> float | None:
    """Return log2 of the geometric mean of the spatial axes; None without more than one position."""
    spatial = value.shape[2:]
    return log2(prod(spatial)) / len(spatial) if prod(spatial) > 1 else None
