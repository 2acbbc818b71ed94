"""A network as a graph of PyTorch's own operations, with a constant factor in place of each SE module.

The trace is one run (`make_fx`) on an example, in evaluation: whatever a network's code does in Python, what is left is
operations on tensors, and for each tensor of the network who reads it. Nothing has to be known of modules.
"""

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, functionalize
from torch.fx import Node
from torch.utils._pytree import tree_flatten, tree_unflatten

from senet.graph.example_inputs import Example, in_float64, random_image, split_example
from senet.graph.se_modules import SEUnit, find_se
from senet.utils.errors import GatesError, first_line
from senet.utils.memory_errors import is_out_of_memory

__all__ = ["Trace", "in_double", "kind_of", "shape_of", "trace_network"]

_VIEWS = ("view", "_unsafe_view", "unsqueeze", "alias", "expand", "reshape")


@dataclass(frozen=True)
class Trace:
    """What a network computes.

    Attributes:
        tensors: names of parameters and buffers by the node that stands for one.
        products: for each SE module, by name, the nodes where its factor is multiplied; more than one where the module
            is called again, none where it is not reached.
        units: the SE modules by name.
        axes: of the channels of the map that each scales, 1 or -1.
    """

    tensors: dict[Node, str]
    products: dict[str, list[Node]]
    factors: set[Node]
    units: dict[str, SEUnit]
    axes: dict[str, int]


def trace_network(model: nn.Module, example: Example | None = None) -> Trace:
    """Trace a network with a factor in place of each SE module; the network is left as it is.

    Args:
        model: the network.
        example: an input: a tensor (N, C, *spatial), or a tuple or dict of inputs; made up unless given, see
            `random_image`.

    Raises:
        TypeError: the example is not an input.
        GatesError: the network has no SE, does not run on the example, or cannot be traced.
    """
    units = {unit.name: unit for unit in find_se(model)}
    if not units or "" in units:
        what = "is an SE module itself" if units else "has no SE"
        raise GatesError(f"{type(model).__name__} {what}: there are no gates to fold in it; give a network with SE")
    x = random_image(model) if example is None else in_float64(example)
    leaves, spec = tree_flatten(split_example(x))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    exact = in_double(model)
    named = {**dict(exact.named_parameters()), **dict(exact.named_buffers())}
    factors = [torch.ones(unit.channels, dtype=torch.float64) for unit in units.values()]

    def run(tensors: list[Tensor], factors: list[Tensor], inputs: list[Tensor]) -> Any:
        # SE that is a part of another module's forward stays: see `changes_of`.
        blocks = [(u, f) for u, f in zip(units.values(), factors, strict=True) if u.form == "block"]
        handles = [
            exact.get_submodule(unit.name).register_forward_hook(_scale_input(factor, unit.axis))
            for unit, factor in blocks
        ]
        given = dict(enumerate(leaves)) | dict(zip(places, inputs, strict=True))
        args, kwargs = tree_unflatten(list(given.values()), spec)
        try:
            return functional_call(exact, dict(zip(named, tensors, strict=True)), args, kwargs)
        finally:
            for handle in handles:
                handle.remove()

    make_fx: Any = torch.fx.experimental.proxy_tensor.make_fx
    tensors = [tensor.detach() for tensor in named.values()]
    try:
        with torch.no_grad():
            graph = make_fx(functionalize(run, remove="mutations_and_views"))(
                tensors, factors, [leaves[place] for place in places]
            ).graph
    except Exception as error:  # whatever a network's own code raises
        if is_out_of_memory(error):
            raise
        shapes = ", ".join(str(tuple(leaves[place].shape)) for place in places) or "without a tensor"
        raise GatesError(
            f"{type(model).__name__} did not run on an input {shapes}: {first_line(error)}; "
            f"give example=, an input of the network"
        ) from error
    graph.eliminate_dead_code()  # what SE has computed, too: nobody reads it
    holders = [node for node in graph.nodes if node.op == "placeholder"]
    owners = dict(zip(holders, named, strict=False))
    views: set[Node] = set()
    products = {name: _products(node, views) for name, node in zip(units, holders[len(named) :], strict=False)}
    return Trace(owners, products, views, units, {name: unit.axis for name, unit in units.items()})


def _scale_input(factor: Tensor, axis: int) -> Callable[..., Tensor]:
    """A hook that has a module give its input times a factor of each channel, whatever else it does."""

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> Tensor:
        behind = 0 if axis == -1 else args[0].ndim - 1 - axis
        return args[0] * factor.view(-1, *[1] * behind)

    return hook


def in_double(model: nn.Module) -> nn.Module:
    """A copy of a network in float64 on the CPU, in evaluation mode."""
    return copy.deepcopy(model).cpu().double().eval()


def kind_of(node: Node) -> str:
    """What a node does, by the name of PyTorch's operation, whether it gives a view or a copy: "convolution"."""
    if node.op != "call_function":
        return node.op
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet)).removesuffix("_copy")


def shape_of(node: Node) -> tuple[int, ...]:
    """Shape of the tensor that a node gives."""
    return tuple(int(length) for length in node.meta["val"].shape)


def _products(node: Node, views: set[Node]) -> list[Node]:
    """The products of a factor; it and the views of it are added to `views`."""
    views.add(node)
    found: list[Node] = []
    for user in node.users:
        found += _products(user, views) if kind_of(user) in _VIEWS else [user]
    return found
