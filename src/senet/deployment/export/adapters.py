"""Modules around a network that is exported: pixels as its input, half precision inside, tensors alone outside."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from senet.data import Preprocessing
from senet.deployment.export.signature import tensors_in
from senet.graph.example_inputs import Example, split_example

__all__ = ["HalfPrecision", "PixelInput", "TensorsOnly", "has_other_values"]


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


class TensorsOnly(nn.Module):
    """Run a network on tensors, and return other tensors, each once.

    Numbers and other inputs get the values of an example, and other outputs are left out: files of ONNX and OpenVINO
    hold tensors alone. Tensors that are returned twice, or are inputs, are copied: they have one name in these files.

    Args:
        model: the network.
        example: its inputs.
    """

    def __init__(self, model: nn.Module, example: Example) -> None:
        super().__init__()
        self.model = model
        leaves, self._structure = tree_flatten(split_example(example))
        self._leaves = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the network's output tensors for the tensors of its inputs."""
        values = iter(tensors)
        leaves = [next(values) if leaf is None else leaf[0] for leaf in self._leaves]
        args, kwargs = tree_unflatten(leaves, self._structure)
        found: list[Tensor] = []
        for tensor in tensors_in(self.model(*args, **kwargs)):
            # Not a clone, which converters remove.
            found.append(tensor[None][0] if any(tensor is one for one in (*tensors, *found)) else tensor)
        return tuple(found)


def has_other_values(example: Example, output: Any) -> bool:
    """Return whether inputs or outputs hold anything but tensors, or a tensor twice."""
    leaves = tree_leaves((split_example(example), output))
    return not all(isinstance(leaf, Tensor) for leaf in leaves) or len(set(map(id, leaves))) != len(leaves)


def _cast(leaf: Any, dtype: torch.dtype) -> Any:
    return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
