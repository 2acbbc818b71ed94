"""Recognize SE in a trace: a map is pooled over space, and two layers compute a gate that scales the map."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from senet.graph.function_modules import VIEWS
from senet.graph.operations import Call, Operation, Trace, Value

__all__ = ["LAYERS", "Excitation", "Flow", "excitations", "gate_of", "is_channel_attention"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = ("convolution", "addmm", "mm", "linear")
_NORMS = {
    *("native_batch_norm", "native_layer_norm", "native_group_norm", "_native_batch_norm_legit_no_training"),
    *("cudnn_batch_norm", "_batch_norm_with_update", "_native_batch_norm_legit"),
}
_GATES = {"sigmoid", "hardsigmoid", "hardtanh", "clamp", "clamp_min", "clamp_max", "tanh", "relu"}
_EXCITATIONS = {*_LAYERS, "sigmoid", "hardsigmoid", "_softmax", "softmax", "tanh"}
_ARITHMETIC = {"add", "sub", "rsub", "mul", "div", "neg"}
_MEANS = {"mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d"}
_MEANS |= {"_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d"}
_LARGEST = {"max", "amax", "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "max_pool3d"}
_LARGEST |= {"adaptive_max_pool2d", "adaptive_max_pool3d"}


@dataclass(frozen=True)
class Excitation:
    """SE in a trace.

    Attributes:
        reduce, expand: calls of the two layers.
        middle: operations between them, normalization included, without views.
        last: operations from the second layer's output to the gate, without views.
        squeeze: "avg", "max" or "avg+max".
        pooled: the map that is pooled, before views of it.
        gate: the gate, before views of it.
        product: the operation that multiplies them; None if the run ends with the gate.
        axis: of the map's channels, 1 or -1.
    """

    reduce: Call
    expand: Call
    middle: tuple[Operation, ...]
    last: tuple[Operation, ...]
    squeeze: str
    pooled: Value
    gate: Value
    product: Operation | None
    axis: int


class Flow:
    """Follows values of a trace back to layers and pools.

    Args:
        trace: the trace.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        # Parameters, and values computed from parameters alone: a parametrized weight, a parameter in another shape.
        self._constants = set(trace.tensors)
        for operation in trace.operations:
            if all(value.number in self._constants for value in operation.inputs):
                self._constants |= {output.number for output in operation.outputs}

    def maker(self, value: Value) -> Operation | None:
        """Return the operation that produced a value; None for an input or a parameter."""
        return self.trace.producer(value)

    def read(self, operation: Operation) -> list[Value]:
        """Return the values that an operation reads, without parameters and values computed from these alone."""
        return [value for value in operation.inputs if value.number not in self._constants]

    def factors(self, operation: Operation) -> list[Value]:
        """Return the values that an operation multiplies, as `read`; none of an operation that is no product."""
        if operation.name == "mul":
            return self.read(operation)
        if operation.name != "addcmul":  # a + b * c
            return []
        return [one for one in operation.args[1:3] if isinstance(one, Value) and one.number not in self._constants]

    def root(self, value: Value) -> Value:
        """Return a value before views of it."""
        while (maker := self.maker(value)) is not None and maker.name in VIEWS and maker.inputs:
            value = maker.inputs[0]
        return value

    def layer(self, value: Value) -> tuple[Call, Value] | None:
        """Return the call of the layer that produced a value, and its input; None for any other operation."""
        maker = self.maker(value)
        if maker is None or maker.name not in _LAYERS:
            return None
        calls = self.trace.enclosing(maker.call)
        read = self.read(maker)
        if not calls or not isinstance(calls[0].module, LAYERS) or len(read) != 1:
            return None
        return calls[0], read[0]

    def back(self, value: Value, passed: set[str] | None) -> tuple[list[Operation], Call, Value] | None:
        """Follow a value back to the layer before it.

        Args:
            value: where to start.
            passed: names of operations that may be between; any operation on one map unless given.

        Returns:
            The operations between, without views, in their order; the call of the layer; and its input. None if there
            is no such layer.
        """
        between: list[Operation] = []
        while True:
            value = self.root(value)
            found = self.layer(value)
            if found is not None:
                return between[::-1], *found
            maker = self.maker(value)
            read = [] if maker is None else self.read(maker)
            if maker is None or (passed is not None and maker.name not in passed):
                return None
            if maker.name in _NORMS:
                read = read[:1]
            roots = {root.number: root for root in map(self.root, read)}
            between.append(maker)
            if len(roots) == 2 and passed is None:  # x * sigmoid(x), as separate operations
                roots, more = self._joined(roots)
                between += more
            if len(roots) != 1:
                return None
            value = next(iter(roots.values()))

    def _joined(self, roots: dict[int, Value]) -> tuple[dict[int, Value], list[Operation]]:
        """Of two values, one computed from the other by one operation, return the other, and the operation."""
        for value in roots.values():
            maker = self.maker(value)
            read = [] if maker is None else [self.root(v) for v in self.read(maker)]
            if maker is not None and len(read) == 1 and read[0].number in roots and read[0].number != value.number:
                return {read[0].number: read[0]}, [maker]
        return roots, []

    def pools(self, value: Value, pooled: Value) -> set[str] | None:
        """Return the kinds of pools between a map and its squeeze; None if the squeeze depends on another value too."""
        root = self.root(value)
        if root.number == pooled.number:
            return set()
        maker = self.maker(root)
        if maker is None:
            return None
        kind = {"avg"} if maker.name in _MEANS else {"max"} if maker.name in _LARGEST else set()
        if not kind and maker.name not in (*_ARITHMETIC, "pow", "sqrt"):
            return None
        for read in self.read(maker):
            before = self.pools(read, pooled)
            if before is None:
                return None
            kind |= before
        return kind


def excitations(trace: Trace) -> Iterator[Excitation]:
    """Yield the SE of a trace, in the order of the products of maps and gates."""
    flow = Flow(trace)
    for operation in trace.operations:
        factors = flow.factors(operation)
        if len(factors) != 2:
            continue
        for map_, gate in (factors, factors[::-1]):
            found = gate_of(flow, gate, flow.root(map_), operation)
            if found is not None:
                yield found
                break


def gate_of(flow: Flow, gate: Value, pooled: Value, product: Operation | None = None) -> Excitation | None:
    """Return the SE that computes a gate from a map; None if the value is not such a gate.

    Args:
        flow: of the trace.
        gate: the value.
        pooled: the map, before views of it.
        product: the operation that multiplies the two, if there is one.
    """
    root = flow.root(gate)
    expanded = flow.back(root, _GATES | _ARITHMETIC | _NORMS)
    if expanded is None or len(pooled.shape) < 3:
        return None
    last, expand, hidden = expanded
    reduced = flow.back(hidden, None)
    if reduced is None or not any(operation.name in _GATES for operation in last):
        return None
    middle, reduce, squeezed = reduced
    pools = flow.pools(squeezed, pooled)
    channels, inputs = _sizes(expand)[0], _sizes(reduce)[1]
    fits = prod(squeezed.shape) == prod(root.shape) == pooled.shape[0] * channels
    if not pools or not fits or inputs != channels:
        return None
    squeeze, map_ = "+".join(sorted(pools)), None
    if product is not None:
        map_ = next((value for value in flow.factors(product) if value.number != gate.number), None)
    axis = _axis(flow, gate, map_, pooled)
    return Excitation(
        reduce=reduce,
        expand=expand,
        middle=tuple(middle),
        last=tuple(last),
        squeeze=squeeze,
        pooled=pooled,
        gate=root,
        product=product,
        axis=axis,
    )


def _sizes(layer: Call) -> tuple[int, int]:
    """Return the outputs and inputs of a layer."""
    weight = layer.module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0], weight.shape[1]


def _axis(flow: Flow, gate: Value, map_: Value | None, pooled: Value) -> int:
    """Return the axis of the map along which the gate lies: the axis where the gate's length is not 1."""
    while (maker := flow.maker(gate)) is not None and maker.name in ("expand", "clone"):
        gate = maker.inputs[0]
    count = len(gate.shape if map_ is None else map_.shape)
    long = [a + count - len(gate.shape) for a in range(1, len(gate.shape)) if gate.shape[a] > 1]
    return -1 if len(long) == 1 and long[0] == count - 1 and count == len(pooled.shape) else 1


def is_channel_attention(trace: Trace) -> bool:
    """Return whether a module scales the channels of its input by what it pools: SE, ECA, CBAM's channel gate.

    Between pool and product is a layer, or a gate; there is none in a norm, such as an instance norm.
    """
    taken = trace.calls[0].taken
    if taken is None:
        return False
    pooled: dict[int, bool] = {taken.number: False}
    excited: set[int] = set()  # pooled values after a layer or a gate
    for operation in trace.operations:
        read = [v.number for v in operation.inputs if v.number in pooled]
        if not read:
            continue
        gates = [number in excited for number in read]
        if operation.name == "mul" and len(read) == 2 and any(gates) and not all(pooled[number] for number in read):
            return True
        pools = operation.name in _MEANS | _LARGEST and _leaves_channels(operation)
        acts = operation.name in _EXCITATIONS and any(pooled[number] for number in read)
        for output in operation.outputs:
            pooled[output.number] = pools or any(pooled[number] for number in read)
            excited |= {output.number} if acts or any(gates) else set()
    return False


def _leaves_channels(operation: Operation) -> bool:
    """Return whether an operation takes (N, C, *spatial) to as many values as N * C."""
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    return len(before) > 2 and prod(before) > prod(after) == prod(before[:2])
