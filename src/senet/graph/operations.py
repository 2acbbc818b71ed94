"""What a trace holds: values, operations, module calls, and the links between them.

A trace keeps numbers, shapes and dtypes of tensors, and never the tensors: it takes no memory of the network's size.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

__all__ = ["MODULE_CALL", "PLAIN", "Call", "Operation", "Trace", "Value"]

# The name of an operation that stands for a whole call of a module.
MODULE_CALL = "module_call"
# Types of most arguments of operations that hold no tensor.
PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format}


@dataclass(frozen=True)
class Value:
    """A tensor of the run. An in-place operation gives a new value.

    Attributes:
        number: its place among the values of the trace.
        shape: its shape.
        dtype: its dtype.
    """

    number: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Operation:
    """One ATen operation.

    Attributes:
        name: without its overload, and without the suffix of an in-place operation: "add".
        args, kwargs: its arguments, with a `Value` in place of each tensor.
        outputs: the tensors that it returned.
        call: index in `Trace.calls` of the innermost module call that it ran in; None outside the network.
        overload: PyTorch's operator, `torch.ops.aten.add.Tensor`; None for an operation that stands for others.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    call: int | None
    overload: Any = field(default=None, compare=False, repr=False)

    @cached_property
    def inputs(self) -> list[Value]:
        """The tensors that it read, in the order of its arguments."""
        return list(_values((self.args, self.kwargs)))


@dataclass
class Call:
    """One call of a module.

    Attributes:
        index: its place in `Trace.calls`.
        name: of the module, as in `named_modules`; the first of several names.
        module: the module.
        parent: index of the call that it ran in; None for the network itself.
        args, kwargs: its arguments, with a `Value` in place of each tensor.
        output: its result, likewise.
    """

    index: int
    name: str
    module: nn.Module
    parent: int | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None

    @property
    def taken(self) -> Value | None:
        """The first positional argument; None if it is not a tensor."""
        return self.args[0] if self.args and isinstance(self.args[0], Value) else None

    @property
    def given(self) -> Value | None:
        """The output; None if it is not a tensor."""
        return self.output if isinstance(self.output, Value) else None


@dataclass
class Trace:
    """One run of a network.

    Attributes:
        operations: in the order in which they ran.
        calls: of modules, in the order in which they began; the first is of the network itself.
        inputs: the tensors of the example.
        tensors: full names of the parameters and buffers, by the number of their value.
        stored: the numbers of the values that the network's code keeps after the run, if `trace` was asked for them.
    """

    operations: list[Operation] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    tensors: dict[int, str] = field(default_factory=dict)
    stored: set[int] = field(default_factory=set)

    @cached_property
    def outputs(self) -> list[Value]:
        """The tensors that the network returned, each once."""
        leaves = tree_leaves(self.calls[0].output) if self.calls else []
        return list(dict.fromkeys(leaf for leaf in leaves if isinstance(leaf, Value)))

    @cached_property
    def _producers(self) -> dict[int, Operation]:
        return {output.number: operation for operation in self.operations for output in operation.outputs}

    @cached_property
    def _consumers(self) -> dict[int, list[Operation]]:
        found: dict[int, list[Operation]] = {}
        for operation in self.operations:
            for number in dict.fromkeys(value.number for value in operation.inputs):
                found.setdefault(number, []).append(operation)
        return found

    @cached_property
    def _calls_by_name(self) -> dict[str, list[Call]]:
        found: dict[str, list[Call]] = {}
        for call in self.calls:
            found.setdefault(call.name, []).append(call)
        return found

    def producer(self, value: Value) -> Operation | None:
        """Return the operation that produced a value; None for an input, a parameter or a buffer."""
        return self._producers.get(value.number)

    def consumers(self, value: Value) -> list[Operation]:
        """Return the operations that read a value, each once, in the order in which they ran."""
        return self._consumers.get(value.number, [])

    def calls_of(self, name: str) -> list[Call]:
        """Return the calls of a module, by its name in `named_modules`."""
        return self._calls_by_name.get(name, [])

    def enclosing(self, call: int | None) -> list[Call]:
        """Return a call and the calls that it ran in, innermost first: the module path of an operation.

        Args:
            call: an index in `calls`, such as `Operation.call`; None gives an empty list.
        """
        found = []
        while call is not None:
            found.append(self.calls[call])
            call = self.calls[call].parent
        return found

    def reachable(self, start: Iterable[Value], without: Collection[int] = ()) -> set[int]:
        """Return the numbers of the values that depend on some values, these included.

        Args:
            start: the values.
            without: numbers of values at which dependence ends.
        """
        found = {value.number for value in start}
        for operation in self.operations:
            if any(value.number in found for value in operation.inputs):
                found |= {value.number for value in operation.outputs}.difference(without)
        return found

    def live(self) -> "Trace":
        """Return the trace without operations that the network's outputs do not depend on."""
        needed = {value.number for value in self.outputs}
        kept = []
        for operation in reversed(self.operations):
            if any(value.number in needed for value in operation.outputs):
                needed |= {value.number for value in operation.inputs}
                kept.append(operation)
        return replace(self, operations=kept[::-1])

    def with_calls_as_operations(self, names: Collection[str]) -> "Trace":
        """Return the trace with one operation, `MODULE_CALL`, in place of those of each call of some modules.

        Its arguments are the call's. Its outputs are the call's output, and other values that are read outside.

        Args:
            names: of the modules. Calls inside such calls, and calls that return no new tensor, are left as they are.
        """
        outermost: dict[int, Call] = {}  # by the index of each call inside, itself included
        for call in self.calls:
            around = outermost.get(call.parent) if call.parent is not None else None
            around = around or (call if call.name in names and self._returns_new_tensor(call) else None)
            if around is not None:
                outermost[call.index] = around
        inside: dict[int, list[Operation]] = {}
        last: dict[int, Operation] = {}
        for operation in self.operations:
            if operation.call in outermost:
                index = outermost[operation.call].index
                inside.setdefault(index, []).append(operation)
                last[index] = operation
        operations = []
        for operation in self.operations:
            if operation.call not in outermost:
                operations.append(operation)
            elif last[outermost[operation.call].index] is operation:
                call = outermost[operation.call]
                operations.append(self._as_operation(call, inside[call.index]))
        return replace(self, operations=operations)

    def _returns_new_tensor(self, call: Call) -> bool:
        maker = None if call.given is None else self.producer(call.given)
        return maker is not None and call in self.enclosing(maker.call)

    def _as_operation(self, call: Call, operations: list[Operation]) -> Operation:
        own = {id(operation) for operation in operations}
        assert call.given is not None
        outputs = {call.given: None}
        for value in (value for operation in operations for value in operation.outputs):
            if value in self.outputs or any(id(reader) not in own for reader in self.consumers(value)):
                outputs[value] = None
        return Operation(MODULE_CALL, call.args, call.kwargs, tuple(outputs), call.index)


def _values(tree: Any) -> Iterator[Value]:
    """Yield the values in arguments, faster than by PyTorch's `tree_leaves`: searches of a trace ask for them often."""
    kind = type(tree)
    if kind is Value:
        yield tree
    elif kind is tuple or kind is list:
        for item in tree:
            yield from _values(item)
    elif kind is dict:
        yield from _values(tuple(tree.values()))
    elif kind not in PLAIN:
        yield from (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Value))
