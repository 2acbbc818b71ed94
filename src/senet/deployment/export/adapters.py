"""Modules around a network that is exported: pixels as its input, and half precision inside."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from senet.data import Preprocessing

__all__ = ["HalfPrecision", "PixelInput"]


class PixelInput(nn.Module):
    """Normalize pixels, then run a network, as `Preprocessing.normalize` does.

    Args:
        model: takes normalized images (N, C, H, W).
        preprocessing: its mean and std are used; images are resized and cropped before.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float32) * 255
            self.register_buffer(name, values.view(-1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Any:
        """Return the network's output for pixels (N, H, W, C) of 0 to 255."""
        return self.model((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)


class HalfPrecision(nn.Module):
    """Run a network in half precision; inputs and outputs stay float32.

    Args:
        model: the network, which is converted in place.
        dtype: float16 or bfloat16.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.dtype = dtype

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the network's output, with its floating-point tensors in float32."""
        args, kwargs = tree_map(lambda leaf: _cast(leaf, self.dtype), (args, kwargs))
        return tree_map(lambda leaf: _cast(leaf, torch.float32), self.model(*args, **kwargs))


def _cast(leaf: Any, dtype: torch.dtype) -> Any:
    return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
