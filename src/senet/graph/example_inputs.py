"""Example inputs of a network: a tensor, a tuple or a dict of inputs; or a made-up image where none is given."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

__all__ = [
    "CONVOLUTIONS",
    "LARGE_SIDES",
    "Example",
    "call",
    "declared_size",
    "describe",
    "example_image",
    "in_float64",
    "random_image",
    "split_example",
]

Example = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# The side of an image where a network declares no size.
_SIDE = 64
# Sides of an image that shows strides, by the number of spatial axes: large, so that borders lost by convolutions
# without padding do not hide the stride. A volume is smaller, as some code uses the product of its sides as an index.
LARGE_SIDES = {1: 512, 2: 512, 3: 64}


def split_example(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments of an example.

    Args:
        example: a tensor, the only input; a tuple or list of the positional inputs; or a dict of inputs by keyword.

    Raises:
        TypeError: the example is none of these, or a dict whose keys are not strings.
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
    """Run a network on an example."""
    args, kwargs = split_example(example)
    return model(*args, **kwargs)


def in_float64(example: Example) -> Example:
    """Return an example on the CPU, with its floating-point tensors in float64."""
    split_example(example)  # for its TypeError

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().cpu().double() if leaf.is_floating_point() else leaf.detach().cpu()

    return tree_map(convert, example)  # type: ignore[no-any-return]


def describe(example: Example) -> str:
    """Describe the shapes, dtypes and devices of an example's tensors, for a message."""
    args, kwargs = split_example(example)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    text = ", ".join(f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')} on {x.device}" for x in tensors)
    return text or "no tensor"


def declared_size(model: nn.Module) -> tuple[int, ...] | None:
    """Return (C, *spatial) of the images that `pretrained_cfg` or `default_cfg` declares; None without either."""
    cfg = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    size = cfg.get("input_size") if isinstance(cfg, Mapping) else getattr(cfg, "input_size", None)
    return tuple(size) if size else None


def example_image(
    model: nn.Module, images: int = 1, *, size: Sequence[int] | None = None, sides: Mapping[int, int] | None = None
) -> Tensor:
    """Make up an image that a network takes, without values: on the meta device.

    Args:
        model: the network.
        images: N.
        size: (C, *spatial) of the image. Unless given, it is the declared size (see `declared_size`); where none is
            declared, as many channels and axes as the first convolution takes, and RGB without a convolution.
        sides: the length of each axis by the number of spatial axes; the declared size is then ignored.

    Returns:
        (N, C, *spatial), in the dtype of the network's weights: of its first convolution if it has one.
    """
    first: Any = next((module for module in model.modules() if isinstance(module, CONVOLUTIONS)), None)
    if size is None:
        size = declared_size(model) if sides is None else None
    if size is None:
        axes = 2 if first is None else len(first.kernel_size)
        size = (3 if first is None else first.in_channels, *[_SIDE if sides is None else sides[axes]] * axes)
    if first is not None:
        dtype = first.weight.dtype
    else:
        tensors = (*model.parameters(), *model.buffers())
        dtype = next((x.dtype for x in tensors if x.is_floating_point()), torch.float32)
    return torch.empty((images, *size), dtype=dtype, device="meta")


def random_image(model: nn.Module, images: int = 2) -> Tensor:
    """Make up a random image that a network takes, the same in every call.

    Args:
        model: the network.
        images: N.

    Returns:
        (N, C, *spatial) as `example_image` says, normally distributed, in float64 on the CPU.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(example_image(model, images).shape, generator=generator, dtype=torch.float64, device="cpu")
