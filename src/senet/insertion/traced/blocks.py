"""The blocks of a network, or of its backbone, where nothing joins."""

from collections.abc import Collection, Iterable
from itertools import pairwise

from torch import nn

from senet.graph.operations import Call, Operation, Value
from senet.insertion.traced.arms import attends
from senet.insertion.traced.flow import ACTIVATIONS, LINEAR, NOISE, Flow, in_series, is_convolution, layer_end
from senet.insertion.traced.joins import lowers_resolution
from senet.insertion.traced.unit import Unit, repeated_kinds

__all__ = ["joins_tokens", "plain_blocks"]

# The most convolutions of a block; a module with more is several blocks.
_MOST = 3
# The most convolutions of a stem: Inception-v3 has five.
_STEM = 6
# Activations with which a network limits its outputs.
_RANGES = ("sigmoid", "tanh", "softplus")
_PADS = ("constant_pad_nd", "pad", "reflection_pad2d", "replication_pad2d")
# Operations after a bare convolution, which is no layer by itself: an upsampling in a decoder, a projection, the
# logarithm of a variance.
_AFTER_BARE = (*NOISE, "cat", "add", "exp", "slice", "split", "split_with_sizes", "view", "reshape", "permute")


def joins_tokens(flow: Flow) -> bool:
    """Return whether branches with linear layers or attention join on tokens, as in transformers and MLP mixers.

    Convolutions are then the stem of the network, or steps between its stages.
    """
    for operation in flow.trace.operations:
        values = [value for value in operation.inputs if flow.depends(value)]
        output = operation.outputs[0] if operation.outputs else None
        if operation.name != "add" or output is None or len(output.shape) < 3 or flow.is_map(output):
            continue
        if len(values) != 2 or values[0].shape != values[1].shape or flow.axes.get(output.number) == 1:
            continue
        one, other = (flow.ancestors(value) for value in values)
        arms = flow.operations(one ^ other) if one & other else []
        if attends(flow, arms) or any(op.name in LINEAR for op in arms):
            return True
    return False


def plain_blocks(flow: Flow, units: Collection[Unit], stem: Iterable[Unit] = ()) -> list[Unit]:
    """Return the blocks outside of units: those of a plain network, and of a plain backbone.

    A network is plain if its blocks hold most convolutions, and each unit is the only one of its kind. In a network of
    repeated units, layers between them, decoders and heads are no blocks. A backbone is plain if it has more
    convolutions in series before all units than a stem.

    Args:
        flow: of the run.
        units: of the network.
        stem: further units, which have no site.
    """
    taken, ends, before = 0, 0, 0
    for unit in (*units, *stem):
        ends |= flow.bit(unit.end)
        before |= flow.ancestors(unit.end)
        for arm in () if unit.join is None else unit.join.arms:
            taken |= arm.own
        for operation in () if unit.call is None else flow.operations_in(unit.call):
            for value in operation.outputs:
                taken |= flow.bit(value)
    convolutions = [op for op in flow.trace.operations if is_convolution(op) and flow.is_map(op.outputs[0])]
    classes = {type(unit.call.module) for unit in units if unit.call is not None} - {nn.Sequential}
    for operation in convolutions:  # of units without a site, such as one that reads the image
        if any(type(call.module) in classes for call in flow.trace.enclosing(operation.call)):
            taken |= flow.bit(operation.outputs[0])
    free = [op for op in convolutions if not taken & flow.bit(op.outputs[0])]
    held = len(convolutions) - len(free)
    if not repeated_kinds(units) and len(free) > held:
        found = _blocks(flow, convolutions, taken)
        if (
            sum(1 if unit.call is None else sum(map(is_convolution, flow.operations_in(unit.call))) for unit in found)
            > held
        ):
            return found
    first = [op for op in free if before & flow.bit(op.outputs[0]) and not flow.ancestors(op.outputs[0]) & ends]
    own = 0
    for operation in first:
        own |= flow.ancestors(operation.outputs[0])
    if in_series(flow.operations(own)) <= _STEM:
        return []
    found = _blocks(flow, convolutions, taken)
    return [unit for unit in found if before & flow.bit(unit.end) and not flow.ancestors(unit.end) & ends]


def _blocks(flow: Flow, convolutions: list[Operation], taken: int) -> list[Unit]:
    """Return the blocks of a network without convolutions that are taken.

    A block is the innermost module that holds a layer (a convolution with its norm and activation) and at most three
    of them; if layers follow it in a module with a forward of its own that is a block, it is a part of that one.
    Convolutions that are children of a larger module, as in VGG, are a block each, and so are those of a module that
    pools between them, or in which several have a stride. The first single layer is the stem. Depthwise convolutions
    are no end of a block, nor are single bare convolutions, a last layer whose output the network returns unless these
    are features, scores (see `Flow.is_score`), and the last one of a network that returns pooled logits.
    """
    done = 0
    found: list[Unit] = []
    seen: set[int] = set()
    kinds: set[type[nn.Module]] = set()
    returned = {value.number for value in flow.trace.outputs}
    for operation in convolutions:
        bit = flow.bit(operation.outputs[0])
        if done & bit:
            continue
        call = _block_of(flow, operation)
        inside = [op for op in flow.operations_in(call) if is_convolution(op)] if call is not None else [operation]
        own = [op for op in inside if not done & flow.bit(op.outputs[0])]
        for inner in own:
            done |= flow.bit(inner.outputs[0])
        end = call.given if call is not None and call.given is not None else layer_end(flow, operation)
        reads_image = not any(flow.ancestors(op.outputs[0]) & ~bit & done for op in own) and len(own) == 1
        if reads_image and flow.ancestors(operation.inputs[0]) & _all(flow, convolutions) == 0:
            continue  # the stem
        if all(_is_depthwise(op) for op in own) or end.number in seen:
            continue
        if end.number in returned and flow.is_last(end) and not _are_features(flow, own[-1], end, found):
            continue
        if taken & _all(flow, own):
            continue
        # A projection at the end of a block is no score of a head, if earlier blocks have the same class.
        scores = flow.is_last if call is not None and type(call.module) in kinds else flow.is_score
        after = flow.operations(flow.ancestors(end) & ~flow.ancestors(own[-1].outputs[0]))
        if end != own[-1].outputs[0]:  # a norm, whose activation may be a function in the code
            after += [op for op in flow.trace.consumers(end) if op.name not in _RANGES]
        if end == own[-1].outputs[0] and len(own) == 1 and _is_bare(flow, end):
            continue
        if not any(op.name in ACTIVATIONS for op in after) and scores(end):
            continue
        if _classifies(flow, end):
            continue
        if not flow.is_map(end) or attends(
            flow, flow.operations(flow.ancestors(end) & ~flow.ancestors(own[0].inputs[0]))
        ):
            continue
        seen.add(end.number)
        kinds |= set() if call is None else {type(call.module)} - {nn.Sequential}
        found.append(Unit("block", call, end))
    outer = [unit.call for unit in found if unit.call is not None]
    return [unit for unit in found if not any(_is_within(flow, unit, call) for call in outer)]


def _are_features(flow: Flow, convolution: Operation, end: Value, earlier: Collection[Unit]) -> bool:
    """Return whether a map that a network returns is rectified, and no narrower than its other blocks."""
    after = flow.operations(flow.ancestors(end) & ~flow.ancestors(convolution.outputs[0]))
    rectified = any(op.name in ACTIVATIONS and op.name not in _RANGES for op in after)
    return rectified and bool(earlier) and end.shape[1] >= max(unit.end.shape[1] for unit in earlier)


def _is_within(flow: Flow, unit: Unit, outer: Call) -> bool:
    """Return whether a block is a part of another one, which has layers after it."""
    if unit.call is None or unit.call is outer or type(outer.module) is nn.Sequential:
        return False
    return flow.within(unit.call, outer)


def _all(flow: Flow, operations: list[Operation]) -> int:
    bits = 0
    for operation in operations:
        bits |= flow.bit(operation.outputs[0])
    return bits


def _block_of(flow: Flow, operation: Operation) -> Call | None:
    """Return the innermost module around a convolution that is a block; None where the layer is one by itself."""
    for call in flow.trace.enclosing(operation.call):
        if call.parent is None:
            return None
        if len(list(call.module.modules())) < 2 or not flow.once(call):
            continue
        operations = flow.operations_in(call)
        layers = [op for op in operations if is_convolution(op)]
        if len(layers) > _MOST or _are_stages(layers):
            return None
        if any(op.name in NOISE for op in operations):
            return None
        if all(is_convolution(op) or op.name in _PADS for op in operations):
            continue  # a convolution in a module of its own
        if call.given is not None and flow.is_map(call.given):
            return call
    return None


def _are_stages(convolutions: list[Operation]) -> bool:
    """Return whether convolutions are the stages of a network: maps are pooled between them, or two have strides."""
    pools = any(lowers_resolution(one.outputs[0], other.inputs[0]) for one, other in pairwise(convolutions))
    return pools or sum(lowers_resolution(op.inputs[0], op.outputs[0]) for op in convolutions) > 1


def _is_depthwise(operation: Operation) -> bool:
    groups = operation.args[8] if len(operation.args) > 8 else 1
    return bool(operation.inputs) and isinstance(groups, int) and groups > 1 and groups == operation.inputs[0].shape[1]


def _is_bare(flow: Flow, value: Value) -> bool:
    """Return whether layers or joins read a convolution's output, without norm and activation.

    It may be scaled, or resized, as the last lateral of a feature pyramid is.
    """
    return all(
        is_convolution(reader)
        or reader.name in _AFTER_BARE
        or ((_scales(flow, reader) or reader.name.startswith("upsample")) and _is_bare(flow, made))
        for reader in flow.trace.consumers(value)
        for made in reader.outputs[:1]
    )


def _scales(flow: Flow, operation: Operation) -> bool:
    return operation.name in ("mul", "div") and sum(map(flow.depends, operation.inputs)) == 1


def _classifies(flow: Flow, end: Value) -> bool:
    """Return whether the network only pools a map to the values that it returns."""
    if any(flow.is_map(value) for value in flow.trace.outputs):
        return False
    later = flow.trace.reachable([end])
    readers = [op for op in flow.trace.operations if any(value.number in later for value in op.inputs)]
    return not any(is_convolution(op) or op.name in LINEAR for op in readers)
