"""The module at which SE acts for a placement in a unit."""

from dataclasses import dataclass

from torch import nn

from senet.graph.operations import Call, Operation, Value
from senet.insertion.attachment import attachment
from senet.insertion.traced.flow import NORMS, Flow, is_convolution, is_spatial_convolution
from senet.insertion.traced.unit import Unit
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.recalibration import Attachment

__all__ = ["Place", "end_of", "place_of"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# They pass a map on, or scale it.
_SCALES = ("mul", "div", "alias", "clone", "contiguous", "detach", "_to_copy", "to", "dropout", "native_dropout")
# They cut borders off, or add them, or pool: the scale of a channel passes them.
_BORDERS = ("slice", "narrow", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d")
_POOLS = ("avg_pool", "max_pool", "adaptive_avg_pool", "_adaptive_avg_pool", "adaptive_max_pool")
# The most operations between the end of a branch and the module before it.
_STEPS = 6


@dataclass(frozen=True)
class Place:
    """A module at which SE acts.

    Attributes:
        call: of the module.
        how: see `Site.how`.
        value: the map that SE scales.
    """

    call: Call
    how: Attachment
    value: Value


def place_of(flow: Flow, unit: Unit, placement: str) -> Place | None:
    """Return the place of a placement in a unit; None where the unit has none."""
    if placement == "standard":
        return _standard(flow, unit)
    if placement == "post":
        return _post(flow, unit)
    if unit.branch is None:
        return None
    if placement == "identity":
        return _identity(flow, unit)
    convolutions = unit.branch.convolutions
    if placement == "pre":
        return _input_of(flow, unit, convolutions[0])
    spatial = next((c for c in convolutions if is_spatial_convolution(c)), None)
    return None if spatial is None else _norm_after(flow, spatial)


def _standard(flow: Flow, unit: Unit) -> Place | None:
    if unit.branch is None:
        return _output(flow, unit)
    place = end_of(flow, unit.end, unit.call, unit.branch.own)
    maker = flow.trace.producer(unit.end)
    if place is None and unit.rule == "residual" and maker is not None and maker.name == "cat":
        return _post(flow, unit)  # the module boundary does not show the concatenation
    return place


def _output(flow: Flow, unit: Unit) -> Place | None:
    """Return the output of a unit of several branches: its last norm, its module, or the module that joins."""
    if unit.call is None:
        return end_of(flow, unit.end, None, flow.bit(unit.end))
    inner = end_of(flow, unit.end, unit.call, flow.bit(unit.end))
    if inner is not None and isinstance(inner.call.module, (*NORMS, SEBatchNorm)):
        return inner
    whole = _at(flow, unit.call, unit.end) if unit.call.given == unit.end else None
    return whole or inner


def _at(flow: Flow, call: Call, value: Value) -> Place | None:
    if not _usable(flow, call):
        return None
    how = attachment(call.module, "output")
    return Place(call, how, value)


def end_of(flow: Flow, value: Value, unit: Call | None, own: int) -> Place | None:
    """Return where SE acts on a value at the end of a branch.

    It is the norm that the branch ends in, aside from scales (layer scale, a factor), modules that pass the value on
    (stochastic depth), borders that the network's code cuts off or adds, and its pools; otherwise the outermost module
    that returns the value, or the last one before it. A module that only passes the value on in evaluation has SE on
    its input, so that SE sees the map before it is dropped.

    Args:
        flow: of the run.
        value: the end.
        unit: the call in which the module is searched; None for the network.
        own: the values of the branch.
    """
    first: Place | None = None
    scaled = True
    for _ in range(_STEPS):
        calls = [c for c in flow.given(value) if _usable(flow, c) and _is_part(flow, c, unit)]
        norms = [c for c in calls if isinstance(c.module, (*NORMS, SEBatchNorm)) and not _passes(c)]
        if norms and scaled and flow.is_map(value):
            return _at(flow, norms[-1], value)
        if first is None and calls and flow.is_map(value):
            makers = [c for c in calls if not _passes(c)]
            first = Place(makers[0], attachment(makers[0].module, "output"), value) if makers else None
            first = first or Place(calls[0], "input", value)
        maker = flow.trace.producer(value)
        before = [] if maker is None else [v for v in maker.inputs if flow.depends(v)]
        if maker is None or len(before) != 1:
            break
        cut = before[0].shape != value.shape
        passed = maker.name in _BORDERS or maker.name.startswith(_POOLS)
        if cut and (first is not None or not passed or before[0].shape[:2] != value.shape[:2]):
            break
        scaled = scaled and (cut or maker.name in _SCALES)
        if (first is not None and not scaled) or not own & flow.bit(before[0]) or is_convolution(maker):
            break
        value = before[0]
    return first


def _is_part(flow: Flow, call: Call, unit: Call | None) -> bool:
    return unit is None or (call is not unit and flow.within(call, unit))


def _usable(flow: Flow, call: Call) -> bool:
    return flow.once(call) and not isinstance(call.module, _CONTAINERS)


def _passes(call: Call) -> bool:
    """Return whether a call returned its input."""
    return call.taken is not None and call.taken == call.given


def _post(flow: Flow, unit: Unit) -> Place | None:
    """Return the output of a unit, or of the last module that only changes the values of the joined map."""
    if unit.join is None or unit.rule in ("concat", "parallel"):
        return _output(flow, unit) if unit.call is not None and unit.branch is None else _standard(flow, unit)
    value, found = unit.join.output, None
    for _ in range(_STEPS):
        # A module that returns its input may be the next unit's skip.
        calls = [c for c in flow.given(value) if _usable(flow, c) and not _passes(c)]
        if unit.call in calls and unit.call is not None:
            return Place(unit.call, "output", value)
        calls = [c for c in calls if unit.call is None or flow.within(c, unit.call)]
        found = Place(calls[0], attachment(calls[0].module, "output"), value) if calls else found
        readers = flow.trace.consumers(value)
        if len(readers) != 1 or len([v for v in readers[0].inputs if flow.depends(v)]) != 1:
            break
        if is_convolution(readers[0]) or not readers[0].outputs or readers[0].outputs[0].shape != value.shape:
            break
        value = readers[0].outputs[0]
    return found


def _identity(flow: Flow, unit: Unit) -> Place | None:
    """Return the end of the skip: its last norm or module.

    A skip that is the input itself has none: which of the modules that return their input unchanged stands in the skip,
    and which in the branch, is not known from a run.
    """
    if unit.skip is None or unit.rule != "residual" or not unit.skip.own:
        return None
    place = end_of(flow, unit.skip.end, unit.call, unit.skip.own | flow.bit(unit.skip.end))
    return None if place is None else Place(place.call, "output" if place.how == "input" else place.how, place.value)


def _input_of(flow: Flow, unit: Unit, operation: Operation) -> Place | None:
    """Return the input of the module that is a convolution, and does not join as well."""
    if operation.call is None:
        return None
    call = flow.trace.calls[operation.call]
    if unit.join is not None and flow.inside(unit.join.operation, call):
        return None
    inner = [name for name, _ in call.module.named_children() if name != "parametrizations"]
    if call.taken is None or not _usable(flow, call) or inner:
        return None
    return Place(call, "input", call.taken)


def _norm_after(flow: Flow, operation: Operation) -> Place | None:
    """Return the norm after a convolution, or the convolution where no norm follows."""
    for call in flow.trace.calls:
        if call.taken == operation.outputs[0] and isinstance(call.module, NORMS) and call.given is not None:
            return _at(flow, call, call.given)
    if operation.call is None:
        return None
    call = flow.trace.calls[operation.call]
    return _at(flow, call, operation.outputs[0]) if call.given == operation.outputs[0] else None
