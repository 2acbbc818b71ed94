"""Why modules with convolutions have no site: stems, heads, classifiers, attention and others."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from senet.graph.operations import Operation, Trace, Value
from senet.insertion.site import Excluded
from senet.insertion.traced.effects import Effects
from senet.insertion.traced.flow import LINEAR, Flow, is_convolution, is_own_convolution, layer_end
from senet.insertion.traced.unit import Unit

__all__ = ["excluded"]

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
# The most convolutions of a stem, where they are more than half of the network's.
_STEM = 3
_PRODUCTS = ("bmm", "baddbmm", "matmul")


@dataclass(frozen=True)
class _Found:
    """The sites of a run.

    Attributes:
        before: the values at the sites.
        after: the values that the sites depend on.
        parts: the values that units with a site computed.
        no_units: why joins are no units, by the number of the joined value.
    """

    before: int
    after: int
    parts: int
    no_units: Mapping[int, str]


def excluded(
    flow: Flow,
    effects: Effects,
    model: nn.Module,
    names: Iterable[str],
    units: Iterable[Unit],
    no_units: Mapping[int, str],
) -> list[Excluded]:
    """Return the largest modules with layers that hold no unit with a site and are in none, with the reason.

    Args:
        flow: of a run.
        effects: of that run.
        model: the network.
        names: of the units that have a site, and of the modules of these sites.
        units: those of them that the run shows.
        no_units: why joins are no units, by the number of the joined value.
    """
    named = {name for name in names if name}
    before = 0
    after = 0
    for name in named:
        for call in flow.trace.calls_of(name):
            if call.given is not None and flow.depends(call.given):
                before |= flow.bit(call.given)
                after |= flow.ancestors(call.given)
    parts = 0
    for unit in units:
        parts |= _parts(flow, unit)
    found = _Found(before, after, parts, no_units)
    reasons = ((name, _reason(flow, effects, name, found)) for name in _outside(model, named))
    return [Excluded(name, reason) for name, reason in reasons if reason]


def _parts(flow: Flow, unit: Unit) -> int:
    """Return the values that a unit computed: of its arms, or of the layer at its end."""
    arms = [arm for arm in (unit.branch, unit.skip) if arm is not None]
    if arms:
        own = 0
        for arm in arms:
            own |= arm.own
        return own
    own, value = flow.bit(unit.end), unit.end
    while (maker := flow.trace.producer(value)) is not None and not is_convolution(maker):
        inputs = [v for v in maker.inputs if flow.depends(v)]
        if len(inputs) != 1:
            break
        (value,) = inputs
        own |= flow.bit(value)
    return own


def _outside(model: nn.Module, named: set[str]) -> Iterator[str]:
    around = {name.rsplit(".", depth)[0] for name in named for depth in range(1, name.count(".") + 1)}

    def walk(name: str, module: nn.Module) -> Iterator[str]:
        if name in named:
            return
        if name and name not in around:
            if any(isinstance(part, _LAYERS) or is_own_convolution(part) for part in module.modules()):
                yield name
            return
        for child, part in module.named_children():
            yield from walk(f"{name}.{child}".strip("."), part)

    yield from walk("", model)


def _reason(flow: Flow, effects: Effects, name: str, found: _Found) -> str:
    """Return why a module has no site; "" if it is a part of a unit that has one."""
    trace: Trace = flow.trace
    calls = [call for call in trace.calls if call.name == name or call.name.startswith(f"{name}.")]
    if not calls:
        return "does not run in evaluation"
    operations = [op for op in trace.operations if any(flow.inside(op, call) for call in trace.calls_of(name))]
    operations = operations or [op for op in trace.operations if op.call in {call.index for call in calls}]
    values = [value for op in operations for value in op.outputs if flow.depends(value)]
    convolutions = [op for op in operations if is_convolution(op)]
    made = [value for op in convolutions for value in op.outputs]
    if made and all(found.parts & flow.bit(value) for value in made):
        return ""
    if any(_attends(flow, operation) for operation in operations):
        return "attention: its maps are weighted by a softmax, or by products of maps"
    without_effect = effects.of(made or values)
    if without_effect:
        return without_effect
    if any(len(trace.calls_of(call.name)) > 1 and next(call.module.parameters(), None) is not None for call in calls):
        return "called several times with the same weights"
    reads = _reads_layers(flow, values)
    if not any(flow.is_map(value) for value in values):
        return _without_maps(flow, values, reads or any(flow.ancestors(value) & found.before for value in values))
    if not convolutions:
        return "no convolutions"
    return _place(flow, operations, values, reads, found)


def _attends(flow: Flow, operation: Operation) -> bool:
    """Return whether an operation is attention: a softmax that is read again, or a product of maps."""
    if operation.name in _PRODUCTS:
        return sum(map(flow.depends, operation.inputs)) > 1
    if operation.name in ("softmax", "_softmax"):
        return any(flow.trace.consumers(output) for output in operation.outputs)
    return "attention" in operation.name


def _without_maps(flow: Flow, values: Iterable[Value], reads: bool) -> str:
    if any(
        len(value.shape) >= 3 and max(value.shape[1:-1]) > 1 and flow.axes.get(value.number, 1) > 1 for value in values
    ):
        return "no maps (N, C, *spatial): its channels are on another axis than 1"
    return f"{'classifier: its maps' if reads else 'no maps: its inputs'} have no spatial axes"


def _place(flow: Flow, operations: list[Operation], values: list[Value], reads: bool, found: _Found) -> str:
    """Return why a module with maps has no site, from where it is, and what joins in it."""
    own = {value.number for value in values}
    layers = [op for op in operations if is_convolution(op)]
    follows = any(flow.ancestors(value) & found.before for value in values)
    leads = any(flow.bit(value) & found.after for value in values)
    if not reads and not follows and len(layers) <= max(_STEM, flow.convolutions // 2):
        return "stem: no layer comes before it"
    later = flow.trace.reachable(values)
    readers = [op for op in flow.trace.operations if any(value.number in later for value in op.inputs)]
    is_last = not any((is_convolution(op) or op.name in LINEAR) and op.outputs[0].number not in own for op in readers)
    if found.before and not leads and is_last:
        return "head: no layer comes after it"
    no_units = [found.no_units[op.outputs[0].number] for op in operations if _joined(op) in found.no_units]
    if no_units:
        return f"no unit: {no_units[0]}"
    if any(_joins_elsewhere(flow, operation) for operation in operations):
        return "no unit: it joins values whose channels are not on axis 1"
    if any(op.name in ("add", "cat") and sum(map(flow.depends, op.inputs)) > 1 for op in operations):
        return "no unit: its sums and concatenations are of other forms"
    if len(layers) == 1 and layer_end(flow, layers[0]) == layers[0].outputs[0]:
        return "a convolution by itself: nothing joins in it"
    where = "" if not found.before or (follows and leads) else _WHERE[follows, leads]
    return f"nothing joins in it{where}"


_WHERE = {
    (False, True): ", and no site comes before it",
    (True, False): ", and no site comes after it",
    (False, False): ", and no site comes before or after it",
}


def _joined(operation: Operation) -> int | None:
    return operation.outputs[0].number if operation.outputs else None


def _joins_elsewhere(flow: Flow, operation: Operation) -> bool:
    """Return whether an operation adds values with channels on another axis than 1."""
    if operation.name != "add" or not operation.outputs or len(operation.outputs[0].shape) < 3:
        return False
    axis = flow.axes.get(operation.outputs[0].number, 1)
    return axis != 1 and sum(map(flow.depends, operation.inputs)) > 1


def _reads_layers(flow: Flow, values: Iterable[Value]) -> bool:
    """Return whether some values depend on convolutions that did not make one of them."""
    own = {value.number for value in values}
    outside = [op for op in flow.trace.operations if is_convolution(op) and op.outputs[0].number not in own]
    layers = 0
    for operation in outside:
        layers |= flow.bit(operation.outputs[0])
    return any(flow.ancestors(value) & layers for value in values)
