"""Sums over an axis along which maps were stacked: `torch.stack([x, y]).sum(0)`, or `torch.einsum` of a stack.

PyTorch runs an einsum as permutations and views around a sum, or around a matrix product with weights.
"""

from collections.abc import Callable, Iterator

from senet.graph.channel_axes import moved_axis, reduced_axes
from senet.graph.operations import Operation, Trace, Value

__all__ = ["stacked_sums"]

_VIEWS = ("view", "_unsafe_view", "reshape", "expand", "unsqueeze", "squeeze", "permute", "transpose", "clone")
_SCALED = ("mul", "div")
# The axes over which a matrix product sums, of its left and its right factor.
_PRODUCTS = {"mm": (1, 0), "bmm": (2, 1), "mv": (1, 0)}


def stacked_sums(trace: Trace, depends: Callable[[Value], bool]) -> dict[int, list[Value]]:
    """Return the maps that were stacked and summed over the new axis, by the number of their sum.

    Values that do not depend on the input may scale the stack and weight the sum.

    Args:
        trace: of the whole network.
        depends: whether a value depends on the input.
    """
    found: dict[int, list[Value]] = {}
    for operation in trace.operations:
        maps, axis = _stacked(trace, operation)
        total = _sum_over(trace, operation.outputs[0], axis, depends) if maps else None
        views = () if total is None else _views(trace, total)
        joined = next((value for value in views if value.shape == maps[0].shape), None)
        if joined is not None:
            found[joined.number] = maps
    return found


def _stacked(trace: Trace, operation: Operation) -> tuple[list[Value], int]:
    """Return the maps that an operation stacks, and the new axis; no maps if it does something else."""
    if operation.name not in ("stack", "cat") or not operation.outputs:
        return [], 0
    maps, rank = operation.inputs, len(operation.outputs[0].shape)
    axis = (operation.args[1] if len(operation.args) > 1 else operation.kwargs.get("dim", 0)) % rank
    if operation.name == "cat":
        makers = [maker for value in maps if (maker := trace.producer(value)) is not None]
        new = [maker.inputs[0] for maker in makers if maker.name == "unsqueeze" and maker.args[1] % rank == axis]
        maps = new if len(new) == len(maps) else []
    return maps, axis


def _sum_over(trace: Trace, value: Value, axis: int, depends: Callable[[Value], bool]) -> Value | None:
    """Return the sum of a value over an axis; None if something else reads the value."""
    readers = trace.consumers(value)
    while len(readers) == 1 and [one for one in readers[0].inputs if depends(one)] == [value]:
        (reader,) = readers
        output = reader.outputs[0]
        if reader.name in ("sum", "mean") and reduced_axes(reader, len(value.shape)) == {axis}:
            return output
        if reader.name in _PRODUCTS:
            return output if _PRODUCTS[reader.name][reader.inputs.index(value)] == axis else None
        after = moved_axis(reader, value, output, axis) if reader.name in (*_VIEWS, *_SCALED) else None
        if after is None:
            return None
        value, axis = output, after
        readers = trace.consumers(value)
    return None


def _views(trace: Trace, value: Value) -> Iterator[Value]:
    """Yield a value, and the views of it, for as long as nothing else reads them."""
    yield value
    while len(readers := trace.consumers(value)) == 1 and readers[0].name in _VIEWS:
        value = readers[0].outputs[0]
        yield value
