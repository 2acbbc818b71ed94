"""What operations do to a constant factor of each channel: pass it on, move it to another axis, or stop it."""

from collections.abc import Iterator
from math import prod
from typing import Any, cast

from torch.fx import Node

from senet.graph.tracing import Trace, kind_of, shape_of

__all__ = ["NORMS", "RESHAPES", "Stuck", "moved", "passes", "places", "same_shapes", "word"]

NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit")
RESHAPES = ("view", "_unsafe_view", "permute", "transpose", "unsqueeze", "squeeze", "reshape")

# Through these a factor passes; through the second row only one that is not negative.
_LINEAR = (
    *("clone", "alias", "detach", "lift_fresh", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d"),
    *("_adaptive_avg_pool3d", "upsample_nearest2d", "upsample_bilinear2d", "reflection_pad2d"),
)
_MONOTONE = ("relu", "leaky_relu", "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "amax")
# These take the channels on axis 1, and act on what is behind.
_SPATIAL = ("pool", "upsample", "reflection")
_WORDS = {
    "add": "a sum",
    "mul": "a product",
    "cat": "a concatenation",
    "output": "the network's output",
    "silu": "SiLU",
    "hardswish": "hard swish",
    "hardtanh": "a clipped activation",
    "gelu": "GELU",
    "placeholder": "the network's input",
}


class Stuck(Exception):  # noqa: N818
    """A factor cannot go on; the text says why."""


def passes(node: Node, axis: int, positive: bool) -> bool:
    """Whether a factor on an axis of the input passes through and stays on that axis.

    Args:
        node: what it is to pass.
        axis: of the channels.
        positive: whether no element of the factor is negative.

    Raises:
        Stuck: it would pass, but for its sign.
    """
    kind, args = kind_of(node), cast(tuple[Any, ...], node.args)
    if kind in _MONOTONE and not positive:
        raise Stuck(f"a gate is negative, and {word(node)} follows the sign")
    if kind in ("mean", "sum", "amax"):
        axes = args[1] if len(args) > 1 else None
        rank = len(shape_of(node.all_input_nodes[0]))
        reduced = {a % rank for a in axes} if isinstance(axes, list | tuple) else set(range(rank))
        keeps = len(shape_of(node)) == rank
        return axis not in reduced and (keeps or all(a > axis for a in reduced))
    if kind == "slice":
        dim = int(args[1]) if len(args) > 1 else 0
        return dim % len(shape_of(node)) != axis
    if kind == "constant_pad_nd":
        value = float(args[2]) if len(args) > 2 else 0.0
        return value == 0 and len(args[1]) // 2 < len(shape_of(node)) - axis
    if any(part in kind for part in _SPATIAL) and axis != 1:
        return False
    return kind in _LINEAR or kind in _MONOTONE


def moved(node: Node, axis: int) -> tuple[int, int] | None:
    """Where an axis of the input is in what a reshaping gives, and how often each of its places is repeated there."""
    before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
    kind, rank, args = kind_of(node), len(before), cast(tuple[Any, ...], node.args)
    if kind == "permute":
        dims = [d % rank for d in args[1]]
        return dims.index(axis), 1
    if kind == "transpose":
        one, other = (int(d) % rank for d in args[1:3])
        return {one: other, other: one}.get(axis, axis), 1
    for place, length in enumerate(after):
        inner = prod(before[axis + 1 :])
        if prod(after[:place]) != prod(before[:axis]):
            continue
        if length == before[axis]:
            return place, 1
        if length == before[axis] * inner and prod(after[place + 1 :]) == 1:
            return place, inner
    return None


def places(user: Node, node: Node) -> Iterator[int]:
    """Where a node stands among what another takes: its arguments, or of a concatenation the maps."""
    args = cast(tuple[Any, ...], user.args)
    found = [place for place, arg in enumerate(args[0] if kind_of(user) == "cat" else args) if arg is node]
    if not found:  # inside a list or a keyword
        raise Stuck(f"{word(user)} takes the map, through which no factor passes")
    yield from found


def same_shapes(node: Node) -> bool:
    """Whether two maps of one shape give another of it, with nothing else taken: a sum of maps, and not of a bias."""
    sources = node.all_input_nodes
    return len(sources) == 2 and len(node.args) == 2 and {shape_of(n) for n in sources} == {shape_of(node)}


def word(node: Node, trace: Trace | None = None) -> str:
    """What to call a node in a message: the layer whose weight it takes, or its operation."""
    if trace is not None:
        for source in node.all_input_nodes:
            name = trace.tensors.get(source)
            if name is not None:
                return name.rpartition(".")[0]
    kind = kind_of(node)
    return _WORDS.get(kind, kind)
