"""Where a constant factor of each channel can go: into the layers before it, or into all that read it.

A factor passes through whatever is homogeneous in each channel, ReLU and maxima where it is not negative, and ends in
a layer: in the rows of a convolution, a linear layer or a batch norm before it, or in the columns of those behind it.
Through a batch norm behind it the factor goes into the running statistics, so that training goes on from the same
function; see `senet.gates.folding.fold`, which carries changes out.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Node

from senet.graph.channel_ops import NORMS, RESHAPES, Stuck, moved, passes, places, same_shapes, word
from senet.graph.tracing import Trace, kind_of, shape_of

__all__ = ["Change", "changes_of"]


@dataclass(frozen=True)
class Change:
    """What becomes of a layer when a factor goes into it.

    Attributes:
        tensor: the name of its weight; of a batch norm, of its running mean.
        kind: "multiply" the tensor by the factor; "rows" of a batch norm: its weight and bias; "statistics" of a batch
            norm behind: its running statistics.
        factor: what to multiply the tensor by, of a shape that broadcasts to it; (C,) for a batch norm.
        bias: the name of the bias that is multiplied too.
        eps: of the batch norm.
    """

    tensor: str
    kind: str
    factor: Tensor
    bias: str | None = None
    eps: float = 0.0


def changes_of(trace: Trace, name: str, values: Tensor, folded: Collection[str]) -> list[Change] | str:
    """What to change in a network so that it computes the same without an SE module whose gates are constant.

    Args:
        trace: of the network.
        name: of the SE module.
        values: (C,), the gates.
        folded: the names of all SE modules that are to be folded, this one among them. The others act on.

    Returns:
        The changes; or, where there is no way, the reason.
    """
    unit = trace.units[name]
    if unit.form != "block":
        where = f"the forward of {type(unit.module).__name__}" if unit.form == "inline" else "the module around it"
        return f"its gates multiply the map in {where}, and only a module that gives the scaled map can be taken out"
    products = trace.products[name]
    if len(products) != 1:
        times = f"runs {len(products)} times in a forward pass" if products else "does not run on the example"
        return f"it {times}, and a factor has one place"
    product = products[0]
    if len(product.all_input_nodes) != 2 or kind_of(product) != "mul":
        return "what it scales cannot be told from its gates"
    source = next(node for node in product.all_input_nodes if node not in trace.factors)
    axis = trace.axes[name] % len(shape_of(product))
    reasons = []
    positive = not bool((values < 0).any())
    before, behind = _Before(trace, set(folded), positive), _Behind(trace, set(folded), positive)
    try:
        before.go(source, values, axis, product)
    except Stuck as stuck:
        reasons.append(f"not into the layers before it, as {stuck}")
    else:
        return before.changes
    try:
        behind.go(product, values, axis)
    except Stuck as stuck:
        reasons.append(f"not into the layers behind it, as {stuck}")
    else:
        return behind.changes
    return "; ".join(reasons)


@dataclass
class _Way:
    trace: Trace
    folded: set[str]
    positive: bool
    changes: list[Change] = field(default_factory=list)

    def name(self, node: object) -> str | None:
        """The name of the parameter or buffer that a node stands for, where nothing else reads it; None without one."""
        if node is None:
            return None
        if not isinstance(node, Node) or node not in self.trace.tensors:
            raise Stuck("a layer's weight is computed from others")
        if len(node.users) > 1 or kind_of(next(iter(node.users))) == "output":
            raise Stuck(f"{self.trace.tensors[node]} is used more than once")
        return self.trace.tensors[node]

    def required(self, node: object) -> str:
        name = self.name(node)
        if name is None:
            raise Stuck("a batch norm has neither statistics nor weights to change")
        return name

    def linear_weight(self, node: object) -> object:
        """Of a linear layer, the (O, I) weight whose transpose a product takes."""
        if isinstance(node, Node) and kind_of(node) in ("t", "transpose", "permute") and len(node.users) == 1:
            return node.args[0]
        raise Stuck("it ends in a product of matrices that is no linear layer's")

    def unit_of(self, node: Node) -> str | None:
        """The SE module whose product a node is."""
        return next((name for name, products in self.trace.products.items() if node in products), None)


class _Before(_Way):
    """A factor's way into the layers before it."""

    def go(self, node: Node, scale: Tensor, axis: int, reader: Node) -> None:
        """Scale what a node gives, where nobody else reads it."""
        others = [user for user in node.users if user is not reader]
        if others:
            raise Stuck(f"{word(others[0], self.trace)} takes the same map and would be scaled too")
        kind, args = kind_of(node), _args(node)
        if kind == "getitem" and args[1] == 0:
            others = [user for user in args[0].users if user is not node]
            kind, node, args = kind_of(args[0]), args[0], _args(args[0])
            if others:
                raise Stuck(f"more than the map of {word(node, self.trace)} is used")
        if kind == "convolution" and not args[6] and axis == 1:
            shape = (-1, *[1] * (len(shape_of(node)) - 1))
            self.changes.append(Change(self.required(args[1]), "multiply", scale.view(shape), self.name(args[2])))
        elif kind in NORMS and axis == 1:
            self._norm(args, scale)
        elif kind == "native_group_norm" and axis == 1 and args[1] is not None:
            self.changes.append(Change(self.required(args[1]), "multiply", scale, self.name(args[2])))
        elif kind in ("addmm", "mm") and axis == 1:
            weight = self.linear_weight(args[-1])
            bias = self.name(args[0]) if kind == "addmm" else None
            self.changes.append(Change(self.required(weight), "multiply", scale.view(-1, 1), bias))
        elif kind == "cat":
            self._concatenation(node, scale, axis)
        elif kind in ("add", "sub") and same_shapes(node) and not node.kwargs:
            for source in node.all_input_nodes:
                self.go(source, scale, axis, node)
        elif kind == "mul":
            unit = self.unit_of(node)
            if unit is None or unit not in self.folded:
                raise Stuck(f"{unit or word(node)} stands between, and acts on what it is given")
            self.go(next(n for n in node.all_input_nodes if n not in self.trace.factors), scale, axis, node)
        elif kind in RESHAPES:
            source = node.all_input_nodes[0]
            found = [a for a in range(len(shape_of(source))) if moved(node, a) == (axis, 1)]
            if len(found) != 1:
                raise Stuck("its channels are rearranged before it")
            self.go(source, scale, found[0], node)
        elif node.all_input_nodes and passes(node, axis, self.positive):
            self.go(node.all_input_nodes[0], scale, axis, node)
        else:
            raise Stuck(f"{word(node, self.trace)} stands between, through which no factor passes")

    def _norm(self, args: tuple[Any, ...], scale: Tensor) -> None:
        weight, bias = self.name(args[1]), self.name(args[2])
        if weight is None and not isinstance(args[3], Node):
            raise Stuck("a batch norm has neither statistics nor weights to change")
        eps = float(args[-1])
        name = weight if weight is not None else self.required(args[3])
        self.changes.append(Change(name, "rows", scale, bias, eps))

    def _concatenation(self, node: Node, scale: Tensor, axis: int) -> None:
        parts, dim = _concatenated(node)
        if len(set(parts)) < len(parts):
            raise Stuck("a map is concatenated with itself")
        lengths = [shape_of(part)[axis] for part in parts]
        scales = torch.split(scale, lengths) if dim == axis else [scale] * len(parts)
        for part, one in zip(parts, scales, strict=True):
            self.go(part, one, axis, node)


class _Behind(_Way):
    """A factor's way into everything that reads it."""

    def go(self, node: Node, scale: Tensor, axis: int) -> None:
        """Have everything that reads a node scale its input by itself."""
        if kind_of(node) == "getitem" and node.args[1] != 0:
            raise Stuck("more than one tensor comes of it")
        for user in node.users:
            for place in places(user, node):
                self._reader(user, place, node, scale, axis)

    def _reader(self, user: Node, place: int, node: Node, scale: Tensor, axis: int) -> None:
        kind, args = kind_of(user), _args(user)
        if kind == "convolution" and place == 0 and not args[6] and axis == 1:
            self._columns(args[1], int(args[8]), scale)
        elif kind in NORMS and place == 0 and axis == 1:
            eps = float(args[-1])
            for tensor in (args[1], args[2], args[4]):
                self.name(tensor)  # or it is not the batch norm's own
            self.changes.append(Change(self.required(args[3]), "statistics", scale, eps=eps))
        elif (kind, place) in (("addmm", 1), ("mm", 0)) and axis == 1:
            self.changes.append(Change(self.required(self.linear_weight(args[-1])), "multiply", scale.view(1, -1)))
        elif kind == "cat":
            self._concatenation(user, place, scale, axis)
        elif kind == "mul" and isinstance(args[1 - place], Node | int | float):
            self._product(user, node, scale, axis)
        elif kind in RESHAPES:
            there = moved(user, axis)
            if there is None:
                raise Stuck("its channels are rearranged behind it")
            self.go(user, scale.repeat_interleave(there[1]), there[0])
        elif kind == "getitem" or passes(user, axis, self.positive):
            self.go(user, scale, axis)
        else:
            raise Stuck(f"{word(user, self.trace)} takes the map, through which no factor passes")

    def _columns(self, weight: Node, groups: int, scale: Tensor) -> None:
        """A convolution's (O, I / groups, ...): each group of outputs reads its own channels."""
        name = self.required(weight)
        outputs, inputs, *kernel = shape_of(weight)
        factor = scale.view(groups, 1, inputs).expand(groups, outputs // groups, inputs)
        self.changes.append(Change(name, "multiply", factor.reshape(outputs, inputs, *[1] * len(kernel))))

    def _concatenation(self, user: Node, place: int, scale: Tensor, axis: int) -> None:
        parts, dim = _concatenated(user)
        if dim != axis:
            raise Stuck("it is concatenated along another axis than that of channels")
        ones = [torch.ones(shape_of(part)[axis], dtype=scale.dtype) for part in parts]
        ones[place] = scale
        self.go(user, torch.cat(ones), axis)

    def _product(self, user: Node, node: Node, scale: Tensor, axis: int) -> None:
        """A product passes a factor on; of SE that stays, the squeeze has to be given it too."""
        unit = self.unit_of(user)
        if unit is not None and unit not in self.folded:
            se = self.trace.units[unit]
            if not self.positive and se.squeeze not in ("avg", "none"):
                raise Stuck(f"a gate is negative, and {unit} squeezes by the maximum")
            first: Any = se.expand if se.reduce is None else se.reduce
            weight = next((n for n, p in se.module.named_parameters() if p is first.weight), None)
            if weight is None or first.weight.shape[1] != len(scale):
                raise Stuck(f"{unit} takes the map in a way that is not known")
            shape = (1, -1, *[1] * (first.weight.ndim - 2))
            self.changes.append(Change(f"{unit}.{weight}", "multiply", scale.view(shape)))
        there = axis + len(shape_of(user)) - len(shape_of(node))
        if shape_of(user)[there] != len(scale):
            raise Stuck("its channels are rearranged behind it")
        self.go(user, scale, there)


def _args(node: Node) -> tuple[Any, ...]:
    return cast(tuple[Any, ...], node.args)


def _concatenated(node: Node) -> tuple[list[Node], int]:
    """The maps that a concatenation takes, and its axis."""
    args = _args(node)
    return list(args[0]), (int(args[1]) if len(args) > 1 else 0) % len(shape_of(node))
