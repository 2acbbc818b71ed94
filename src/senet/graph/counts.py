"""Count what an operation of a trace computes: multiply-adds, and the elements that it writes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_flop

from senet.graph.operations import Operation, Value

__all__ = ["Counts", "count"]

_aten = torch.ops.aten


def _times_vector(*operands: Any, **_: Any) -> int:
    """Return the FLOPs of a product of a matrix, or a vector, and a vector: the last two operands."""
    return 2 * torch.Size(operands[-2].shape).numel()


# PyTorch's formulas, which count 2 for a multiply-add, and formulas for what they lack: vectors, attention on a CPU.
_FORMULAS: dict[Any, Callable[..., int]] = flop_registry | {
    _aten.mv: _times_vector,
    _aten.addmv: _times_vector,
    _aten.dot: _times_vector,
    _aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
}
# Their outputs are no views by their declaration, yet nothing is written.
_UNWRITTEN = (_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten._unsafe_view)


class Counts(NamedTuple):
    """What an operation computes.

    Attributes:
        macs: multiply-adds of a convolution or a product of matrices; 0 for any other operation.
        written: elements that any other operation writes, of floating-point tensors.
    """

    macs: int
    written: int


def count(operation: Operation) -> Counts:
    """Count what an operation computes, from the shapes of its arguments."""
    overload = operation.overload
    packet = getattr(overload, "overloadpacket", None)
    formula = _FORMULAS.get(packet)
    if formula is not None:
        given: Any = (operation.args, operation.kwargs, operation.outputs)
        if hasattr(formula, "__wrapped__"):  # PyTorch's wrapper replaces tensors by their shapes
            given = tree_map_only(Value, lambda value: value.shape, given)
        args, kwargs, outputs = given
        return Counts(formula(*args, **kwargs, out_val=outputs[0] if len(outputs) == 1 else outputs) // 2, 0)
    if overload is None or overload.is_view or packet in _UNWRITTEN:
        return Counts(0, 0)
    return Counts(
        0, sum(torch.Size(value.shape).numel() for value in operation.outputs if value.dtype.is_floating_point)
    )
