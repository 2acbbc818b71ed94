"""Inputs and outputs of a network that is exported: their tensors, in order, their names, and others like them."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from senet.graph.example_inputs import Example, split_example

__all__ = [
    "all_finite",
    "batch_of",
    "enlarged",
    "in_order",
    "input_names",
    "input_tensors",
    "output_names",
    "spatial_axes",
    "tensors_in",
    "vary",
]


def in_order(model: nn.Module, example: Example) -> Example:
    """Return an example with its keywords in the order of the parameters of `forward`, as in the exported file."""
    args, kwargs = split_example(example)
    if not kwargs:
        return args
    parameters = inspect.signature(model.forward).parameters
    return {name: kwargs[name] for name in parameters if name in kwargs} | kwargs


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors of a nested value, in order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether no floating-point tensor has NaN or infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())


def input_tensors(example: Example) -> list[Tensor]:
    """Return the tensors of an example, in the order of the inputs of the exported file."""
    return tensors_in(split_example(example))


def input_names(model: nn.Module, example: Example) -> list[str]:
    """Return a name for each input tensor: that of its parameter of `forward`, with a number where that has several."""
    args, kwargs = split_example(example)
    signature = inspect.signature(model.forward)
    names: list[str] = []
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        many = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        names += _names_in(value, "" if many else name)
    return _unique(names)


def output_names(output: Any, inputs: Sequence[str]) -> list[str]:
    """Return a name for each output tensor: its key in a dictionary, otherwise "output" and its number.

    Args:
        output: of the network.
        inputs: names of the inputs, which no output has.
    """
    names = _names_in(output, "" if isinstance(output, Mapping) else "output")
    return _unique([*inputs, *names])[len(inputs) :]


def _names_in(value: Any, name: str) -> Iterator[str]:
    """Yield a name for each tensor of a nested value."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _names_in(one, f"{name}_{key}" if name else str(key))
        return
    count = len(tensors_in(value))
    yield from [name] if count == 1 else [f"{name}_{number}" for number in range(count)]


def _unique(names: list[str]) -> list[str]:
    """Number names that occur again."""
    found: list[str] = []
    for name in names:
        number, free = 0, name
        while free in found:
            number += 1
            free = f"{name}_{number}"
        found.append(free)
    return found


def batch_of(example: Example) -> int:
    """Return the batch size of an example: the length of its first tensor; 0 without one."""
    return next((len(tensor) for tensor in input_tensors(example) if tensor.ndim), 0)


def spatial_axes(tensor: Tensor) -> list[int]:
    """Return the spatial axes of an input: of maps (N, C, *spatial), and of pixels (N, H, W, C) of 8 bits."""
    if tensor.dtype == torch.uint8 and tensor.ndim == 4:
        return [1, 2]
    return list(range(2, tensor.ndim)) if tensor.is_floating_point() else []


def enlarged(images: Tensor, more: int) -> Tensor:
    """Return images with more pixels on each spatial axis, by nearest neighbours."""
    for axis in spatial_axes(images):
        length = images.shape[axis] + more
        images = images.index_select(axis, torch.arange(length) * images.shape[axis] // length)
    return images


def vary(example: Example, seed: int, batch: int | None = None, more: int = 0) -> Example:
    """Return an example of the same form with random images, which may have another batch and size.

    Args:
        example: the inputs. Tensors without spatial axes keep their values, repeated to another batch size.
        seed: of the random numbers.
        batch: the batch size; that of the example by default.
        more: pixels added to each spatial axis.
    """
    before = batch_of(example)
    generator = torch.Generator().manual_seed(seed)

    def change(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.ndim:
            return leaf
        rows = batch if batch is not None and len(leaf) == before else len(leaf)
        axes = spatial_axes(leaf)
        if not axes:
            return leaf[torch.arange(rows) % max(1, len(leaf))] if rows != len(leaf) else leaf
        shape = [rows, *(side + more * (axis in axes) for axis, side in enumerate(leaf.shape) if axis)]
        if leaf.is_floating_point():
            return torch.randn(shape, generator=generator, dtype=leaf.dtype)
        return torch.randint(0, 256, shape, generator=generator, dtype=leaf.dtype)

    return tree_map(change, example)  # type: ignore[no-any-return]
