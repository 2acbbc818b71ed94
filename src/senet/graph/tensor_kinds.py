"""How a network runs for a trace: on its own tensors, or on tensors without values in their place.

- "real" runs the network on its own tensors; buffers that change are restored.
- "meta" runs it on the meta device: nothing is computed, and no memory is taken. The fastest.
- "fake" runs it on PyTorch's fake tensors, which have no values either, and are on a CPU for the network's code. What
  PyTorch and senet choose by device, such as fused batch norm with SE, is then as on a CPU.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, functionalize
from torch.utils._pytree import tree_leaves, tree_map

from senet.graph.example_inputs import Example, split_example
from senet.graph.kept_state import same_state, same_values
from senet.utils.structures import found_in

__all__ = ["PreparedForward", "TensorKind", "has_shapes_of_values", "prepare_forward", "tensors_in"]

TensorKind = Literal["real", "meta", "fake"]


@dataclass(frozen=True)
class PreparedForward:
    """A forward pass that is ready to run.

    Attributes:
        tensors: parameters and buffers of the run, by their full names.
        inputs: the tensors of the example.
        forward: runs it.
    """

    tensors: Mapping[str, Tensor]
    inputs: list[Tensor]
    forward: Callable[[], object]


@contextmanager
def prepare_forward(
    model: nn.Module,
    example: Example,
    tensors: TensorKind,
    *,
    gradients: bool = False,
    functional: bool = False,
    dtype: torch.dtype | None = None,
) -> Iterator[PreparedForward]:
    """Prepare a forward pass on tensors of a kind, in a context where it can run.

    Args:
        model: the network; its parameters and buffers stay in place. What its code changes in buffers, attributes
            and caches is restored afterwards.
        example: its input, see `split_example`. For a run without values, shapes and dtypes alone count.
        tensors: the kind.
        gradients: whether every parameter requires a gradient, in a run without values.
        functional: whether views and in-place operations become operations that return new tensors, in a run without
            values (`torch.func.functionalize`).
        dtype: of all floating-point tensors, in a run without values; their own dtypes unless given.

    Raises:
        TypeError: the example is not an input.
    """
    from torch._subclasses import FakeTensorMode

    def requires_gradient(tensor: Tensor) -> bool:
        return tensor.requires_grad or (gradients and isinstance(tensor, nn.Parameter) and tensor.is_floating_point())

    def dtype_of(tensor: Tensor) -> torch.dtype:
        return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype

    def on_meta(tensor: Tensor) -> Tensor:
        return tensor.detach().to("meta", dtype_of(tensor)).requires_grad_(requires_gradient(tensor))

    def on_fake(tensor: Tensor) -> Tensor:
        shape, stride, asks = tensor.shape, tensor.stride(), requires_gradient(tensor)
        return torch.empty_strided(shape, stride, dtype=dtype_of(tensor), device="cpu", requires_grad=asks)

    args, kwargs = split_example(example)
    if tensors == "real":
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with same_state(model), same_values(model):
            yield PreparedForward(state, _inputs_in((args, kwargs)), lambda: model(*args, **kwargs))
    elif tensors == "meta":
        with same_state(model):
            yield _with_replacements(model, args, kwargs, on_meta, functional)
    else:
        with same_state(model), torch.inference_mode(False), FakeTensorMode(allow_non_fake_inputs=True):
            yield _with_replacements(model, args, kwargs, on_fake, functional)


def has_shapes_of_values(error: Exception) -> bool:
    """Return whether a run on fake tensors failed because a shape depends on values, as the boxes of a detector do."""
    from torch._subclasses.fake_tensor import DynamicOutputShapeException

    return isinstance(error, DynamicOutputShapeException)


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors in a structure of tuples, lists and dicts."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _inputs_in(tree: Any) -> list[Tensor]:
    """Return the tensors in a structure, also in attributes of objects in it, such as a dataclass."""
    found = tensors_in(tree)
    known = set(map(id, found))
    return found + [x for x in found_in(tree, Tensor, attributes=True) if id(x) not in known]


def _with_replacements(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    replace: Callable[[Tensor], Tensor],
    functional: bool,
) -> PreparedForward:
    # Each module once, and without functional_call's own handling of tied weights, which would swap the tensors of a
    # module with two names twice, and leave the replacement in place of the first.
    held = {
        f"{prefix}.{name}".removeprefix("."): tensor
        for prefix, module in model.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }
    replacements = {id(tensor): replace(tensor) for tensor in held.values()}
    state = {name: replacements[id(tensor)] for name, tensor in held.items()}
    args, kwargs = tree_map(lambda leaf: replace(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs))

    def forward(state: dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        return functional_call(model, state, args, kwargs, tie_weights=False)

    run = functionalize(forward, remove="mutations_and_views") if functional else forward
    return PreparedForward(state, tensors_in((args, kwargs)), lambda: run(state, args, kwargs))
