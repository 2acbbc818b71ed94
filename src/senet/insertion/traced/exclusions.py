"""Why modules with convolutions have no site: stems, heads, classifiers, attention and others."""

from collections.abc import Iterable, Iterator

from torch import nn

from senet.graph.operations import Trace, Value
from senet.insertion.site import Excluded
from senet.insertion.traced.arms import attends
from senet.insertion.traced.effects import Effects
from senet.insertion.traced.flow import Flow, is_convolution

__all__ = ["excluded"]

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)


def excluded(
    flow: Flow, effects: Effects, model: nn.Module, units: Iterable[str], sites: Iterable[str]
) -> list[Excluded]:
    """Return the largest modules with layers that hold no unit with a site and are in none, with the reason.

    Args:
        flow: of a run.
        effects: of that run.
        model: the network.
        units: names of the units that have a site.
        sites: names of the modules of these sites.
    """
    named = {name for name in (*units, *sites) if name}
    before = 0
    after = 0
    for name in named:
        for call in flow.trace.calls_of(name):
            if call.given is not None and flow.depends(call.given):
                before |= flow.bit(call.given)
                after |= flow.ancestors(call.given)
    return [Excluded(name, _reason(flow, effects, name, before, after)) for name in _outside(model, named)]


def _outside(model: nn.Module, named: set[str]) -> Iterator[str]:
    around = {name.rsplit(".", depth)[0] for name in named for depth in range(1, name.count(".") + 1)}

    def walk(name: str, module: nn.Module) -> Iterator[str]:
        if name in named:
            return
        if name and name not in around:
            if any(isinstance(part, _LAYERS) for part in module.modules()):
                yield name
            return
        for child, part in module.named_children():
            yield from walk(f"{name}.{child}".strip("."), part)

    yield from walk("", model)


def _reason(flow: Flow, effects: Effects, name: str, before: int, after: int) -> str:
    """Return why a module has no site.

    Args:
        flow: of the run.
        effects: of the run.
        name: the module.
        before: the values at the sites.
        after: the values that the sites depend on.
    """
    trace: Trace = flow.trace
    calls = [call for call in trace.calls if call.name == name or call.name.startswith(f"{name}.")]
    if not calls:
        return "does not run in evaluation"
    operations = [op for op in trace.operations if any(flow.inside(op, call) for call in trace.calls_of(name))]
    operations = operations or [op for op in trace.operations if op.call in {call.index for call in calls}]
    if attends(op for op in operations if not op.name.startswith(("mean", "_adaptive", "adaptive", "amax", "sum"))):
        return "attention: its maps are weighted by their products"
    values = [value for op in operations for value in op.outputs if flow.depends(value)]
    convolutions = [op for op in operations if is_convolution(op)]
    without_effect = effects.of([value for op in convolutions for value in op.outputs] or values)
    if without_effect:
        return without_effect
    if not any(flow.is_map(value) for value in values):
        return "classifier: its maps have no spatial axes"
    if not before and not _reads_layers(flow, values):
        return "stem: no layer comes before it"
    if before and not any(flow.ancestors(value) & before for value in values):
        return "stem: no site comes before it"
    if len(trace.calls_of(name)) > 1 or any(len(trace.calls_of(call.name)) > 1 for call in calls):
        return "head: it is called several times with the same weights"
    if before and not any(flow.bit(value) & after for value in values):
        return "head: no site comes after it"
    if not convolutions:
        return "no convolutions"
    if not before:
        return "no block: nothing joins in it"
    return "nothing joins in it, and other blocks of this network have joins"


def _reads_layers(flow: Flow, values: Iterable[Value]) -> bool:
    """Return whether some values depend on convolutions that did not make one of them."""
    own = {value.number for value in values}
    outside = [op for op in flow.trace.operations if is_convolution(op) and op.outputs[0].number not in own]
    layers = 0
    for operation in outside:
        layers |= flow.bit(operation.outputs[0])
    return any(flow.ancestors(value) & layers for value in values)
