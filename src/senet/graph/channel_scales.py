"""Find where a constant factor of each channel can go: into the layers before it, or into all that read the map.

A factor passes through operations that are homogeneous in each channel, and through ReLU and maxima if it is not
negative. It ends in a layer: in the rows of a convolution, a linear layer or a batch norm before it, or in the columns
of the layers after it. A batch norm after it takes the factor into its running statistics, so that training continues
from the same function. `senet.gates.folding.fold` applies the changes.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from senet.graph.channel_ops import NORMS, RESHAPES, NoPath, describe, moved, passes, places, same_shapes
from senet.graph.operations import MODULE_CALL, Operation, Value
from senet.graph.se_trace import SETrace

__all__ = ["Change", "changes_of"]


@dataclass(frozen=True)
class Change:
    """The change of one layer that takes a factor.

    Attributes:
        tensor: the name of its weight; of a batch norm without one, of its running mean.
        kind: "multiply" the tensor by the factor; "rows" of a batch norm before the factor: its weight and bias;
            "statistics" of a batch norm after it: its running statistics.
        factor: what to multiply the tensor by, of a shape that broadcasts to it; (C,) for a batch norm.
        bias: the name of the bias that is multiplied too.
        eps: of the batch norm.
    """

    tensor: str
    kind: str
    factor: Tensor
    bias: str | None = None
    eps: float = 0.0


def changes_of(trace: SETrace, name: str, values: Tensor, folded: Collection[str]) -> list[Change] | str:
    """Return the changes with which a network computes the same without an SE module whose gates are constant.

    Args:
        trace: of the network.
        name: of the SE module.
        values: (C,), the gates.
        folded: the names of all SE modules that are folded together, including this one. All others stay.

    Returns:
        The changes; or the reason why there are none.
    """
    unit = trace.units[name]
    if unit.form != "block":
        where = f"the forward of {type(unit.module).__name__}" if unit.form == "inline" else "the module around it"
        return f"its gates multiply the map in {where}, and only a module that gives the scaled map can be taken out"
    products = trace.products(name)
    if len(products) != 1:
        times = f"runs {len(products)} times in a forward pass" if products else "does not run on the example"
        return f"it {times}, and a factor has one place"
    product = products[0]
    source, result = product.args[0] if product.args else None, product.outputs[0]
    if not isinstance(source, Value):
        return "its map is not its first positional argument"
    axis = unit.axis % len(result.shape)
    reasons = []
    positive = not bool((values < 0).any())
    before, after = _Before(trace, set(folded), positive), _After(trace, set(folded), positive)
    try:
        before.go(source, values, axis, product)
    except NoPath as error:
        reasons.append(f"not into the layers before it, as {error}")
    else:
        return before.changes
    try:
        after.go(result, values, axis)
    except NoPath as error:
        reasons.append(f"not into the layers behind it, as {error}")
    else:
        return after.changes
    return "; ".join(reasons)


@dataclass
class _Path:
    """A factor's path to the layers that take it, and their changes."""

    trace: SETrace
    folded: set[str]
    positive: bool
    changes: list[Change] = field(default_factory=list)

    def name(self, value: object) -> str | None:
        """Return the name of a parameter or buffer that is read once; None without one."""
        if value is None:
            return None
        run = self.trace.run
        name = run.tensors.get(value.number) if isinstance(value, Value) else None
        if name is None or not isinstance(value, Value):
            raise NoPath("a layer's weight is computed from others")
        if len(run.consumers(value)) > 1 or value in run.outputs:
            raise NoPath(f"{name} is used more than once")
        return name

    def required(self, value: object) -> str:
        name = self.name(value)
        if name is None:
            raise NoPath("a batch norm has neither statistics nor weights to change")
        return name

    def linear_weight(self, value: object) -> object:
        """Return the (O, I) weight of a linear layer, whose transpose a product takes."""
        run = self.trace.run
        if isinstance(value, Value) and len(run.consumers(value)) == 1:
            maker = run.producer(value)
            if maker is not None and maker.name in ("t", "transpose", "permute"):
                return maker.args[0]
        raise NoPath("it ends in a product of matrices that is no linear layer's")

    def describe(self, operation: Operation | None) -> str:
        return describe(operation, self.trace.run)

    def only_map(self, operation: Operation) -> bool:
        """Return whether nothing but the first output of an operation is used."""
        run = self.trace.run
        return not any(run.consumers(other) or other in run.outputs for other in operation.outputs[1:])


class _Before(_Path):
    """A factor's path into the layers before it."""

    def go(self, value: Value, scale: Tensor, axis: int, reader: Operation) -> None:
        """Scale a map that nothing else reads."""
        run = self.trace.run
        others = [operation for operation in run.consumers(value) if operation is not reader]
        if others or value in run.outputs:
            other = self.describe(others[0]) if others else "the network's output"
            raise NoPath(f"{other} takes the same map and would be scaled too")
        operation = run.producer(value)
        if operation is None or value != operation.outputs[0]:
            raise NoPath(f"{self.describe(operation)} stands between, through which no factor passes")
        if not self.only_map(operation):
            raise NoPath(f"more than the map of {describe(operation)} is used")
        name, args = operation.name, operation.args
        if name == "convolution" and not args[6] and axis == 1:
            shape = (-1, *[1] * (len(value.shape) - 1))
            self.changes.append(Change(self.required(args[1]), "multiply", scale.view(shape), self.name(args[2])))
        elif name in NORMS and axis == 1:
            self._norm(args, scale)
        elif name == "native_group_norm" and axis == 1 and args[1] is not None:
            self.changes.append(Change(self.required(args[1]), "multiply", scale, self.name(args[2])))
        elif name in ("addmm", "mm") and axis == 1:
            weight = self.linear_weight(args[-1])
            bias = self.name(args[0]) if name == "addmm" else None
            self.changes.append(Change(self.required(weight), "multiply", scale.view(-1, 1), bias))
        elif name == "cat":
            self._concatenation(operation, scale, axis)
        elif name in ("add", "sub") and same_shapes(operation) and not operation.kwargs:
            for source in operation.inputs:
                self.go(source, scale, axis, operation)
        elif name == MODULE_CALL and self.trace.unit_of(operation) in self.folded:
            self.go(args[0], scale, axis, operation)
        elif name in ("mul", MODULE_CALL):
            what = self.trace.unit_of(operation) or describe(operation)
            raise NoPath(f"{what} stands between, and acts on what it is given")
        elif name in RESHAPES:
            source = operation.inputs[0]
            found = [a for a in range(len(source.shape)) if moved(operation, a) == (axis, 1)]
            if len(found) != 1:
                raise NoPath("its channels are rearranged before it")
            self.go(source, scale, found[0], operation)
        elif operation.inputs and passes(operation, axis, self.positive):
            self.go(operation.inputs[0], scale, axis, operation)
        else:
            raise NoPath(f"{self.describe(operation)} stands between, through which no factor passes")

    def _norm(self, args: tuple[Any, ...], scale: Tensor) -> None:
        weight, bias = self.name(args[1]), self.name(args[2])
        if weight is None and not isinstance(args[3], Value):
            raise NoPath("a batch norm has neither statistics nor weights to change")
        eps = float(args[-1])
        name = weight if weight is not None else self.required(args[3])
        self.changes.append(Change(name, "rows", scale, bias, eps))

    def _concatenation(self, operation: Operation, scale: Tensor, axis: int) -> None:
        parts, dim = _concatenated(operation)
        if len(set(parts)) < len(parts):
            raise NoPath("a map is concatenated with itself")
        lengths = [part.shape[axis] for part in parts]
        scales = torch.split(scale, lengths) if dim == axis else [scale] * len(parts)
        for part, one in zip(parts, scales, strict=True):
            self.go(part, one, axis, operation)


class _After(_Path):
    """A factor's path into all that reads the map."""

    def go(self, value: Value, scale: Tensor, axis: int) -> None:
        """Have each reader of a map scale its input by itself."""
        run = self.trace.run
        for operation in run.consumers(value):
            for place in places(operation, value):
                self._reader(operation, place, value, scale, axis)
        if value in run.outputs:
            raise NoPath("the network's output takes the map, through which no factor passes")

    def _reader(self, operation: Operation, place: int, value: Value, scale: Tensor, axis: int) -> None:
        name, args = operation.name, operation.args
        if name == "convolution" and place == 0 and not args[6] and axis == 1:
            self._columns(args[1], int(args[8]), scale)
        elif name in NORMS and place == 0 and axis == 1:
            eps = float(args[-1])
            for tensor in (args[1], args[2], args[4]):
                self.name(tensor)  # raises if it is not the batch norm's own
            self.changes.append(Change(self.required(args[3]), "statistics", scale, eps=eps))
        elif (name, place) in (("addmm", 1), ("mm", 0)) and axis == 1:
            self.changes.append(Change(self.required(self.linear_weight(args[-1])), "multiply", scale.view(1, -1)))
        elif name == "cat":
            self._concatenation(operation, place, scale, axis)
        elif name == MODULE_CALL and place == 0:
            self._block(operation, scale)
            self._continue(operation, scale, axis)
        elif name == "mul" and isinstance(args[1 - place], Value | int | float) and args[1 - place] != value:
            there = axis + len(operation.outputs[0].shape) - len(value.shape)
            if operation.outputs[0].shape[there] != len(scale):
                raise NoPath("its channels are rearranged behind it")
            self._continue(operation, scale, there)
        elif name in RESHAPES:
            there_and_times = moved(operation, axis)
            if there_and_times is None:
                raise NoPath("its channels are rearranged behind it")
            self._continue(operation, scale.repeat_interleave(there_and_times[1]), there_and_times[0])
        elif passes(operation, axis, self.positive):
            self._continue(operation, scale, axis)
        else:
            raise NoPath(f"{self.describe(operation)} takes the map, through which no factor passes")

    def _continue(self, operation: Operation, scale: Tensor, axis: int) -> None:
        if not self.only_map(operation):
            raise NoPath(f"more than the map of {describe(operation)} is used")
        self.go(operation.outputs[0], scale, axis)

    def _columns(self, weight: Value, groups: int, scale: Tensor) -> None:
        """Scale a convolution's (O, I / groups, ...): each group of outputs reads its own channels."""
        name = self.required(weight)
        outputs, inputs, *kernel = weight.shape
        factor = scale.view(groups, 1, inputs).expand(groups, outputs // groups, inputs)
        self.changes.append(Change(name, "multiply", factor.reshape(outputs, inputs, *[1] * len(kernel))))

    def _concatenation(self, operation: Operation, place: int, scale: Tensor, axis: int) -> None:
        parts, dim = _concatenated(operation)
        if dim != axis:
            raise NoPath("it is concatenated along another axis than that of channels")
        ones = [torch.ones(part.shape[axis], dtype=scale.dtype) for part in parts]
        ones[place] = scale
        self._continue(operation, torch.cat(ones), axis)

    def _block(self, operation: Operation, scale: Tensor) -> None:
        """Have the first layer of an SE module that stays scale the squeeze, which no longer has the factor."""
        unit = self.trace.unit_of(operation)
        if unit is None or unit in self.folded:
            return
        se = self.trace.units[unit]
        if not self.positive and se.squeeze not in ("avg", "none"):
            raise NoPath(f"a gate is negative, and {unit} squeezes by the maximum")
        first: Any = se.expand if se.reduce is None else se.reduce
        weight = next((n for n, p in se.module.named_parameters() if p is first.weight), None)
        if weight is None or first.weight.shape[1] != len(scale):
            raise NoPath(f"{unit} takes the map in a way that is not known")
        shape = (1, -1, *[1] * (first.weight.ndim - 2))
        self.changes.append(Change(f"{unit}.{weight}", "multiply", scale.view(shape)))


def _concatenated(operation: Operation) -> tuple[list[Value], int]:
    """Return the maps that a concatenation takes, and its axis."""
    args = operation.args
    return list(args[0]), (int(args[1]) if len(args) > 1 else 0) % len(operation.outputs[0].shape)
