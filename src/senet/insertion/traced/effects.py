"""What the outputs of a run depend on, and what they depend on only through gates, which scale another map."""

from collections.abc import Collection, Iterable
from functools import cached_property

import torch
from torch.utils._pytree import tree_leaves

from senet.graph.operations import Operation, Trace, Value
from senet.insertion.traced.flow import LINEAR, is_convolution

__all__ = ["Effects"]

# Operations by which a run may use a map without a dependence between values.
_WRITES = ("copy", "index_put", "_index_put_impl", "masked_scatter", "set")
_VIEWS = ("slice", "select", "split", "split_with_sizes", "unbind", "chunk", "narrow", "as_strided", "diagonal")
_GATES = ("sigmoid", "hardsigmoid", "_softmax", "softmax", "special_expit")
_PRODUCTS = ("mul", "bmm", "matmul", "baddbmm", "addcmul")
# They change the shape of a gate, or its values by constants or parameters.
_PASSING = (
    *("view", "_unsafe_view", "reshape", "expand", "expand_as", "repeat", "unsqueeze", "squeeze", "permute", "t"),
    *("transpose", "flatten", "clone", "alias", "detach", "contiguous", "_to_copy", "to", "select", "slice", "unbind"),
    *("split", "split_with_sizes", "chunk", "index", "native_dropout", "dropout", "add", "sub", "rsub", "mul", "div"),
    *("pow", "neg", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d"),
    *("upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "_adaptive_avg_pool2d", "avg_pool2d"),
)


class Effects:
    """Which values of a run have an effect on its outputs.

    Args:
        run: of the whole network.

    Attributes:
        needed: numbers of the values that the outputs depend on; None where the run does not record it.
        ungated: likewise, of those with a path to the outputs that passes no gate. A gate is a sigmoid or a softmax by
            which another map is multiplied, as in an attention gate; `x * sigmoid(x)` is an activation. A mask of the
            network's input, or of its encoding by one layer, is the network's output, and no gate: at most one layer
            decodes the product, and most layers make the mask.
    """

    def __init__(self, run: Trace) -> None:
        self._run = run
        self._depending = run.reachable(run.inputs)
        self.needed: set[int] | None = None
        self.ungated: set[int] | None = None
        # The run does not record what depends on a write into a view, or an unknown kind of output.
        if run.outputs and not any(self._writes(operation) for operation in run.operations):
            self.needed = self._before_outputs(set())
            self.ungated = self._before_outputs(self._gates())

    def of(self, values: Iterable[Value]) -> str:
        """Return why some values have no effect, or are attention; "" if they have an effect."""
        numbers = {value.number for value in values}
        if self.needed is None or self.ungated is None or self.ungated & numbers:
            return ""
        if self.needed & numbers:
            return "attention: its output only gates other maps"
        return "does not affect the output"

    def of_modules(self, names: Iterable[str]) -> dict[str, str]:
        """Return why modules have no effect, or are attention, by their names; without those that have an effect.

        Args:
            names: of modules; one that did not run has no effect.
        """
        reasons = {}
        for name in names:
            leaves = [leaf for call in self._run.calls_of(name) for leaf in tree_leaves(call.output)]
            outputs = [leaf for leaf in leaves if isinstance(leaf, Value)]
            reason = self.of(outputs) if outputs else "does not affect the output"
            if reason:
                reasons[name] = reason
        return reasons

    def _before_outputs(self, without: set[int]) -> set[int]:
        """Return the numbers of the values that the outputs depend on, but for some and what only these depend on."""
        needed = {value.number for value in self._run.outputs} - without
        for operation in reversed(self._run.operations):
            if any(value.number in needed for value in operation.outputs):
                needed |= {value.number for value in operation.inputs} - without
        return needed

    def _writes(self, operation: Operation) -> bool:
        if operation.name in _WRITES:
            return True
        if not isinstance(operation.overload, torch._ops.OpOverload) or not operation.overload._schema.is_mutable:
            return False
        made = self._run.producer(operation.inputs[0]) if operation.inputs else None
        return made is not None and made.name in _VIEWS

    def _gates(self) -> set[int]:
        """Return the numbers of gates: all that reads one multiplies another map by it, and it is no mask."""
        found: set[int] = set()
        for operation in self._run.operations:
            gate: set[int] = set()
            products: list[Operation] = []
            if operation.name not in _GATES or not operation.inputs:
                continue
            if self._multiplies(operation.outputs[0], self._sources(operation.inputs[0]), gate, products):
                found |= set() if self._is_mask(operation.inputs[0], gate, products) else gate
        return found

    def _is_mask(self, made_from: Value, gate: Collection[int], products: Iterable[Operation]) -> bool:
        """Return whether a gate scales the network's input, or its encoding by one layer, to the network's output."""
        own, layers = {made_from.number}, 0
        for operation in reversed(self._run.operations):
            if any(value.number in own for value in operation.outputs):
                own |= {value.number for value in operation.inputs}
                layers += _is_layer(operation)
        scaled = [v for op in products for v in op.inputs if v.number in self._depending and v.number not in gate]
        return (
            2 * layers > sum(map(_is_layer, self._run.operations))
            and all(self._layers_before.get(value.number, 0) <= 1 for value in scaled)
            and all(self._layers_after.get(value.number, 0) <= 1 for op in products for value in op.outputs)
        )

    @cached_property
    def _layers_before(self) -> dict[int, int]:
        """How many layers in series made each value."""
        found: dict[int, int] = {}
        for operation in self._run.operations:
            most = max((found.get(value.number, 0) for value in operation.inputs), default=0) + _is_layer(operation)
            found |= dict.fromkeys((value.number for value in operation.outputs), most)
        return found

    @cached_property
    def _layers_after(self) -> dict[int, int]:
        """How many layers in series read each value."""
        found: dict[int, int] = {}
        for operation in reversed(self._run.operations):
            most = max((found.get(value.number, 0) for value in operation.outputs), default=0) + _is_layer(operation)
            for value in operation.inputs:
                found[value.number] = max(most, found.get(value.number, 0))
        return found

    def _sources(self, value: Value) -> set[int]:
        """Return the values that differ from a gate's input by elementwise operations only."""
        found = {value.number}
        made = self._run.producer(value)
        while made is not None and made.name in ("mul", "div", "add", "sub", "clone", "_to_copy"):
            before = [v for v in made.inputs if v.number in self._depending]
            if len(before) != 1:
                break
            found.add(before[0].number)
            made = self._run.producer(before[0])
        return found

    def _multiplies(self, gate: Value, own: set[int], seen: set[int], products: list[Operation]) -> bool:
        """Return whether all that reads a gate multiplies another map by it.

        Args:
            gate: the gate, possibly in another shape.
            own: the values that it was computed from by elementwise operations: a product with them is an activation.
            seen: gets the numbers of the gate's values.
            products: gets the products with other maps.
        """
        readers = self._run.consumers(gate)
        seen.add(gate.number)
        for reader in readers:
            others = [v for v in reader.inputs if v.number in self._depending and v.number not in seen]
            if reader.name in _PRODUCTS and others:
                if any(other.number in own for other in others):
                    return False
                products.append(reader)
                continue
            outputs = [output for output in reader.outputs if self._reads(output)]
            passes = not others and reader.name in _PASSING
            if not passes or not all(self._multiplies(output, own, seen, products) for output in outputs):
                return False
        return bool(readers)

    def _reads(self, value: Value) -> bool:
        return bool(self._run.consumers(value)) or value in self._run.outputs


def _is_layer(operation: Operation) -> bool:
    return is_convolution(operation) or operation.name in LINEAR
