"""Example inputs of a network: a tensor, or a tuple or dict of inputs, and an image made up where none is given."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["CONVOLUTIONS", "Example", "call", "describe", "image_for", "in_float64", "split_example"]

Example = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# A side of an image without values: large, so that what convolutions without padding take off at the borders does not
# hide the stride. A volume is smaller, as some code takes the product of its sides for an index.
_SIDES = {1: 512, 2: 512, 3: 64}


def split_example(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that an example stands for.

    Args:
        example: a tensor, the only input; a tuple or list of the positional inputs; or a dict of inputs by keyword.

    Raises:
        TypeError: it is none of these, or a dict whose keys are not text.
    """
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, tuple | list):
        return tuple(example), {}
    if isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        return (), dict(example)
    raise TypeError(
        f"example must be a tensor, a tuple of inputs, or a dict of inputs by keyword, got {type(example).__name__}"
    )


def call(model: nn.Module, example: Example) -> Any:
    """What a network gives for an example."""
    args, kwargs = split_example(example)
    return model(*args, **kwargs)


def in_float64(example: Example) -> Example:
    """An example on the CPU, its floating-point tensors in float64."""
    split_example(example)  # for its TypeError

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().cpu().double() if leaf.is_floating_point() else leaf.detach().cpu()

    return tree_map(convert, example)  # type: ignore[no-any-return]


def describe(example: Example) -> str:
    """The shapes, dtypes and devices of an example's tensors, for a message."""
    args, kwargs = split_example(example)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    text = ", ".join(f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')} on {x.device}" for x in tensors)
    return text or "no tensor"


def image_for(model: nn.Module, images: int = 1, *, side: int | None = None) -> Tensor:
    """An image without values, on the meta device, with as many channels and axes as the first convolution takes.

    Args:
        model: the network; without a convolution it gets an RGB image.
        images: N.
        side: of each spatial axis.

    Returns:
        (N, C, *spatial), in the dtype of the first convolution.
    """
    first: Any = next((module for module in model.modules() if isinstance(module, CONVOLUTIONS)), None)
    axes = 2 if first is None else len(first.kernel_size)
    dtype = torch.float32 if first is None else first.weight.dtype
    shape = (images, 3 if first is None else first.in_channels, *[side or _SIDES[axes]] * axes)
    return torch.empty(shape, dtype=dtype, device="meta")
