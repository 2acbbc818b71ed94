"""Which values of a run depend on which, and which modules take and return them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from math import prod

from torch import nn

from senet.graph.channel_axes import CONVOLUTIONS, channel_axes
from senet.graph.operations import Call, Operation, Trace, Value
from senet.insertion.traced.stacks import stacked_sums

__all__ = [
    "ACTIVATIONS",
    "LINEAR",
    "NOISE",
    "NORMS",
    "Flow",
    "in_series",
    "is_convolution",
    "is_norm",
    "is_own_convolution",
    "is_spatial_convolution",
    "layer_end",
]

ACTIVATIONS = (
    *("relu", "prelu", "_prelu_kernel", "leaky_relu", "elu", "celu", "silu", "gelu", "mish", "hardtanh", "hardswish"),
    *("sigmoid", "tanh", "softplus", "clamp_min", "maximum"),
)
LINEAR = ("addmm", "mm", "linear", "bmm", "matmul")
NOISE = ("randn_like", "rand_like", "normal", "normal_functional", "uniform")
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def is_convolution(operation: Operation) -> bool:
    """Return whether an operation is a convolution, transposed or not."""
    return operation.name in CONVOLUTIONS


def is_own_convolution(module: nn.Module) -> bool:
    """Return whether a module may be a convolution of the network's own: it has a weight (out, in, *kernel)."""
    if isinstance(module, nn.ParameterList):
        return False
    # A scale (1, C, 1, 1) has no more elements than channels.
    return any(p.ndim >= 3 and p.numel() > max(p.shape) for p in module.parameters(recurse=False))


def is_norm(operation: Operation) -> bool:
    """Return whether an operation is a norm of a layer; a vector norm is none."""
    return "norm" in operation.name and not operation.name.startswith("linalg")


def is_spatial_convolution(operation: Operation) -> bool:
    """Return whether an operation is a convolution with a kernel larger than 1."""
    return is_convolution(operation) and len(operation.inputs) > 1 and max(operation.inputs[1].shape[2:], default=1) > 1


def in_series(operations: Iterable[Operation]) -> int:
    """Return how many convolutions of some operations are in series."""
    depths: dict[int, int] = {}
    for operation in operations:
        before = max((depths.get(value.number, 0) for value in operation.inputs), default=0)
        depths |= dict.fromkeys((value.number for value in operation.outputs), before + is_convolution(operation))
    return max(depths.values(), default=0)


class Flow:
    """Dependence between the values of a run.

    Sets of values are integers, with one bit per value that depends on the input.

    Args:
        trace: of the whole network.

    Attributes:
        trace: as given.
        axes: the axis of the channels of each value, by its number.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.axes = channel_axes(trace)
        self._values: list[Value] = []
        self._places: dict[int, int] = {}
        self._ancestors: dict[int, int] = {}
        for value in trace.inputs:
            self._add(value, 0)
        for operation in trace.operations:
            before = 0
            for value in operation.inputs:
                before |= self._ancestors.get(value.number, 0)
            if before:
                for value in operation.outputs:
                    self._add(value, before)

    def _add(self, value: Value, before: int) -> None:
        self._places[value.number] = len(self._values)
        self._ancestors[value.number] = before | 1 << len(self._values)
        self._values.append(value)

    @cached_property
    def stacked_sums(self) -> dict[int, list[Value]]:
        """The maps that were stacked and summed over the new axis, by the number of their sum."""
        return stacked_sums(self.trace, self.depends)

    @cached_property
    def _given(self) -> dict[int, list[Call]]:
        found: dict[int, list[Call]] = {}
        for call in self.trace.calls:
            if call.given is not None:
                found.setdefault(call.given.number, []).append(call)
        return found

    @cached_property
    def _enclosing(self) -> list[frozenset[int]]:
        found: list[frozenset[int]] = []
        for call in self.trace.calls:
            found.append((found[call.parent] if call.parent is not None else frozenset()) | {call.index})
        return found

    @cached_property
    def _convolving(self) -> Counter[int]:
        operations = [op for op in self.trace.operations if is_convolution(op) and op.call is not None]
        return Counter(index for op in operations if op.call is not None for index in self._enclosing[op.call])

    def convolves(self, call: Call) -> int:
        """Return how many convolutions ran in a call."""
        return self._convolving[call.index]

    @cached_property
    def convolutions(self) -> int:
        """How many convolutions ran."""
        return sum(map(is_convolution, self.trace.operations))

    def given(self, value: Value) -> list[Call]:
        """Return the calls that returned a value, in the order in which they began: outer ones first."""
        return self._given.get(value.number, [])

    def depends(self, value: Value) -> bool:
        """Return whether a value depends on the network's input."""
        return value.number in self._places

    def ancestors(self, value: Value) -> int:
        """Return the set of values that a value depends on, itself included."""
        return self._ancestors.get(value.number, 0)

    def bit(self, value: Value) -> int:
        """Return the set that holds one value; the empty set if it does not depend on the input."""
        return 1 << self._places[value.number] if value.number in self._places else 0

    def last(self, values: int) -> Value:
        """Return the value of a set that was computed last."""
        return self._values[values.bit_length() - 1]

    def members(self, values: int) -> Iterator[Value]:
        """Yield the values of a set, in the order in which they were computed."""
        while values:
            lowest = values & -values
            yield self._values[lowest.bit_length() - 1]
            values ^= lowest

    def operations(self, values: int) -> list[Operation]:
        """Return the operations that computed the values of a set, in the order in which they ran."""
        makers = (self.trace.producer(value) for value in self.members(values))
        return list({id(maker): maker for maker in makers if maker is not None}.values())

    def inside(self, operation: Operation, call: Call) -> bool:
        """Return whether an operation ran in a call."""
        return operation.call is not None and call.index in self._enclosing[operation.call]

    def operations_in(self, call: Call) -> list[Operation]:
        """Return the operations that ran in a call."""
        return [operation for operation in self.trace.operations if self.inside(operation, call)]

    def within(self, inner: Call, outer: Call) -> bool:
        """Return whether a call ran in another one, or is that one."""
        return outer.index in self._enclosing[inner.index]

    def smallest(self, start: int | None, operations: Iterable[Operation]) -> Call | None:
        """Return the innermost call around a call in which all operations ran; None if it is the network's.

        A single convolution is no unit.
        """
        operations = list(operations)
        for call in self.trace.enclosing(start):
            layer = self.convolves(call) == 1 and not list(call.module.children())
            if call.parent is not None and not layer and all(self.inside(operation, call) for operation in operations):
                return call
        return None

    def is_last(self, value: Value) -> bool:
        """Return whether no convolution, linear layer or norm depends on a value."""
        later = self.trace.reachable([value])
        readers = (op for op in self.trace.operations if any(one.number in later for one in op.inputs))
        return not any(is_convolution(op) or op.name in LINEAR or is_norm(op) for op in readers)

    def is_score(self, value: Value) -> bool:
        """Return whether a value reaches the outputs without a further layer, as the scores of a head.

        Scores may be resized, added, concatenated and fused by convolutions, but no convolution depends on them through
        an activation, and no linear layer or norm does.
        """
        later = {value.number}
        activated: set[int] = set()
        for operation in self.trace.operations:
            read = {one.number for one in operation.inputs}
            if not read & later:
                continue
            if operation.name in LINEAR or is_norm(operation):
                return False
            if is_convolution(operation) and read & activated:
                return False
            made = {output.number for output in operation.outputs}
            later |= made
            if read & activated or operation.name in ACTIVATIONS or operation.name.startswith("max_pool"):
                activated |= made
        return True

    def once(self, call: Call) -> bool:
        """Return whether a module has a name and is called once."""
        return bool(call.name) and len(self.trace.calls_of(call.name)) == 1

    def is_map(self, value: Value) -> bool:
        """Return whether a value is (N, C, *spatial) with more than one position."""
        return len(value.shape) >= 3 and prod(value.shape[2:]) > 1 and self.axes.get(value.number) == 1


def layer_end(flow: Flow, operation: Operation) -> Value:
    """Return the end of a layer: after the norm and the activation that alone read a convolution's output."""
    value = operation.outputs[0]
    while True:
        value = _normed(flow, value)
        readers = flow.trace.consumers(value)
        if len(readers) != 1 or is_convolution(readers[0]) or not readers[0].outputs:
            return value
        after = readers[0].outputs[0]
        alone = [v for v in readers[0].inputs if flow.depends(v)] == [value]
        if not alone or after.shape != value.shape or not flow.is_map(after) or not _has_module(flow, after):
            return value
        value = after


def _normed(flow: Flow, value: Value) -> Value:
    """Return what a norm makes of a value that it alone reads; an instance norm does so in another shape."""
    for call in flow.trace.calls:
        if call.taken == value and isinstance(call.module, NORMS) and call.given is not None and flow.once(call):
            alone = all(flow.inside(reader, call) for reader in flow.trace.consumers(value))
            return call.given if alone and call.given.shape == value.shape else value
    return value


def _has_module(flow: Flow, value: Value) -> bool:
    return any(flow.once(call) and not isinstance(call.module, nn.Sequential) for call in flow.given(value))
