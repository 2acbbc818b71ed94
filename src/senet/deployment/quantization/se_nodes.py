"""Find SE in the graph of an exported network, by what its nodes compute; the names of modules are lost there."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Node", "SENodes", "einsum_kind", "find_se_nodes"]

# Names of the operations in ONNX and in OpenVINO.
_SQUEEZES = {
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
}
_LAYERS = {"Conv", "Convolution", "Gemm", "GroupConvolution", "MatMul"}
_PRODUCTS = {"Mul", "Multiply"}
_SHAPES = {"Shape", "ShapeOf"}


@dataclass(frozen=True)
class Node:
    """A node of a graph.

    Attributes:
        name: unique in the graph.
        kind: its operation, as ONNX or OpenVINO name it; for an einsum, see `einsum_kind`.
        inputs: names of the nodes and of the network's inputs whose values it takes; constants are left out.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class SENodes:
    """The nodes of one SE.

    Attributes:
        gate: names of the nodes that compute the gate: squeeze, layers and activations.
        products: names of the nodes that multiply the map by the gate.
    """

    gate: tuple[str, ...]
    products: tuple[str, ...]


def einsum_kind(equation: str) -> str:
    """Return the operation that an einsum stands for: "Mul", a product without sums; "ReduceSum"; else "MatMul".

    Args:
        equation: such as "nchw,nc->nchw".
    """
    terms, arrow, output = equation.replace(" ", "").partition("->")
    summed = set(terms) - set(output) - {","}
    if not arrow or (summed and "," in terms):
        return "MatMul"
    return "ReduceSum" if summed else "Mul"


def find_se_nodes(nodes: Sequence[Node]) -> list[SENodes]:
    """Return the SE of a graph: a map is squeezed over space, layers make a gate of that, and the gate scales a map.

    Args:
        nodes: the graph in the order of execution, without its constants.
    """
    constant: set[str] = set()  # known from shapes alone
    for node in nodes:
        if node.kind in _SHAPES or (node.inputs and constant.issuperset(node.inputs)):
            constant.add(node.name)
    nodes = [Node(n.name, n.kind, tuple(i for i in n.inputs if i not in constant)) for n in nodes]
    nodes = [node for node in nodes if node.name not in constant]
    # The mean and the maximum of one map make one gate.
    squeezes: dict[tuple[str, ...], list[str]] = {}
    for node in nodes:
        if node.kind in _SQUEEZES:
            squeezes.setdefault(node.inputs, []).append(node.name)
    found = (_follow(nodes, squeezed) for squeezed in squeezes.values())
    return [se for se in found if se is not None]


def _follow(nodes: Iterable[Node], squeezed: Collection[str]) -> SENodes | None:
    """Return the SE that begins with these squeezes; None if they are something else."""
    inside = dict.fromkeys(squeezed)  # computed from the squeezes alone, in order
    products: dict[str, list[str]] = {}  # with the gate that each takes
    by_name = {node.name: node for node in nodes}
    for node in by_name.values():
        gates = [name for name in node.inputs if name in inside]
        if node.name in inside or not gates:
            continue
        if len(gates) == len(node.inputs):
            inside[node.name] = None
        elif node.kind in _PRODUCTS:
            products[node.name] = gates
    gate: dict[str, None] = {}
    waiting = [name for gates in products.values() for name in gates]
    while waiting:
        name = waiting.pop()
        if name not in gate:
            gate[name] = None
            waiting += [] if name in squeezed else [one for one in by_name[name].inputs if one in inside]
    ordered = [name for name in inside if name in gate]
    if not any(by_name[name].kind in _LAYERS for name in ordered):
        return None  # a norm scales by a function of a mean, too
    return SENodes(tuple(ordered), tuple(products))
