"""What a run of a network returned and left behind, and how far it is from that of another network."""

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from senet.graph.example_inputs import Example, call, in_float64
from senet.graph.kept_state import same_state
from senet.utils.structures import found_in, held_attributes

__all__ = ["PRECISIONS", "Precision", "Results", "distances", "magnitudes", "results"]

_IN_FLOAT64 = {
    **dict.fromkeys((torch.float16, torch.bfloat16, torch.float32), torch.float64),
    torch.complex64: torch.complex128,
}


@dataclass(frozen=True)
class Results:
    """Tensors of a run.

    Attributes:
        outputs: in order.
        layers: outputs of the first calls of layers, by their names.
        kept: what the run left in attributes of modules, by the names of these.
    """

    outputs: list[Tensor]
    layers: dict[str, list[Tensor]]
    kept: dict[str, list[Tensor]]


class _InFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Compute in float64 what code of a network casts to a lower precision."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_wider, (args, kwargs or {}))
        return func(*args, **kwargs)


def _wider(leaf: Any) -> Any:
    return _IN_FLOAT64.get(leaf, leaf) if isinstance(leaf, torch.dtype) else leaf


@dataclass(frozen=True)
class Precision:
    """How networks run in a comparison.

    Attributes:
        exact: copies run in float64 on the CPU; otherwise in their own precision, on their device.
        context: in which they run.
    """

    exact: bool
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


# In the order in which they are tried: code of a network may not run in float64, or not on the CPU.
PRECISIONS = (Precision(exact=True), Precision(exact=True, context=_InFloat64), Precision(exact=False))


@torch.no_grad()
def results(model: nn.Module, example: Example, precision: Precision) -> Results:
    """Run a copy of a network, always with the same random numbers."""
    copied, inputs = copy.deepcopy(model), example
    if precision.exact:
        copied, inputs = copied.cpu().double(), in_float64(example)
    inputs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, inputs)
    before = _kept(copied)
    layers: dict[str, list[Tensor]] = {}
    handles = []
    for name, module in copied.named_modules():
        if next(module.children(), None) is None:

            def keep(module: nn.Module, args: object, output: object, name: str = name) -> None:
                layers.setdefault(name, _tensors(output))

            handles.append(module.register_forward_hook(keep))
    try:
        with same_state(copied), torch.random.fork_rng(devices=[]), precision.context():
            torch.manual_seed(0)
            outputs = _tensors(call(copied, inputs))
            after = _kept(copied)
    finally:
        for handle in handles:
            handle.remove()
    old = {id(leaf) for leaves in before.values() for leaf in leaves}
    new = {name: [leaf for leaf in leaves if id(leaf) not in old] for name, leaves in after.items()}
    return Results(outputs, layers, {name: _tensors(leaves) for name, leaves in new.items() if leaves})


def _kept(model: nn.Module) -> dict[str, list[Tensor]]:
    """Return the tensors in attributes of modules that are no parameters."""
    return {
        f"{name}.{attribute}": list(found_in(value, Tensor, attributes=True))
        for name, module in model.named_modules()
        for attribute, value in {**held_attributes(module), **module._buffers}.items()
    }


def _tensors(output: object) -> list[Tensor]:
    return [leaf.detach().clone() for leaf in found_in(output, Tensor, attributes=True)]


def distances(expected: Results, actual: Results, layers: Iterable[str]) -> list[tuple[Tensor, Tensor]] | None:
    """Return the tensors of a run with their differences in another run; None if they have other shapes.

    Outputs that contain indices, as those of detectors, depend on the order of nearly equal scores: there, values are
    compared in ascending order, and the outputs of unchanged layers with them.

    Args:
        expected: of the original.
        actual: of another network.
        layers: names of the layers that both have.
    """
    ones, others = expected.outputs, actual.outputs
    if not all(map(_is_real, ones)):
        # In any order; as many as the original has, unless an order or a threshold decides on that, too.
        pairs = [pair for pair in zip(ones, others, strict=False) if pair[0].shape == pair[1].shape]
        pairs = [(_sorted(one), _sorted(other)) for one, other in pairs if _is_real(one)]
        ones = [*(one for one, _ in pairs), *(leaf for name in layers for leaf in expected.layers.get(name, []))]
        others = [*(other for _, other in pairs), *(leaf for name in layers for leaf in actual.layers.get(name, []))]
    names = [name for name in expected.kept if name in actual.kept]
    ones = [*ones, *(leaf for name in names for leaf in expected.kept[name])]
    others = [*others, *(leaf for name in names for leaf in actual.kept[name])]
    if [leaf.shape for leaf in ones] != [leaf.shape for leaf in others]:
        return None
    return [_difference(one, other) for one, other in zip(ones, others, strict=True)]


def _is_real(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _sorted(x: Tensor) -> Tensor:
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).flatten().sort().values


def _difference(expected: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:
    """Return a tensor and its difference in float64, both zero where the tensor is not finite."""
    if expected.is_complex():
        expected, actual = (torch.view_as_real(x.resolve_conj()) for x in (expected, actual))
    expected, actual = expected.cpu().double(), actual.cpu().double()
    finite = expected.isfinite()
    return expected.where(finite, 0.0), (actual - expected).where(finite, 0.0)


def magnitudes(x: Tensor) -> Tensor:
    """Return the largest absolute value of a tensor, then those of its channels and of the columns of its last axis.

    An output may hold values of several scales: boxes in pixels and scores of 0 to 1.
    """
    if not x.numel():
        return x.new_zeros(1)
    x = x.abs()
    found = [x.amax().view(1)]
    if x.ndim > 1:
        found.append(x.transpose(0, 1).flatten(1).amax(1))
    if x.ndim > 2:
        found.append(x.flatten(0, -2).amax(0))
    return torch.cat(found)
