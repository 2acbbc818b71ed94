"""Fold a scale and a shift of each channel into the layer before them, exactly: convolutions and linear layers."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from senet.deployment.rewriting.batch_norms import Affine
from senet.graph.chains import Chains, Unusable
from senet.graph.comparing import same_function, small_shapes
from senet.graph.operations import Call, Value

__all__ = ["check_layer", "dense_rows", "fold_into", "is_layer", "is_pointwise", "out_channels"]

_TRANSPOSED = nn.modules.conv._ConvTransposeNd
_EXACT = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is a convolution, transposed or not, or a linear layer."""
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear)


def out_channels(layer: Any) -> int:
    """Return the number of a layer's output channels."""
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def is_pointwise(layer: Any) -> str:
    """Return "" if a layer is a convolution whose output at a position reads the input there; otherwise the reason."""
    if type(layer) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return f"it follows a {type(layer).__name__}"
    if set(layer.kernel_size) != {1}:
        return f"it follows a convolution of {'x'.join(map(str, layer.kernel_size))}"
    if set(layer.stride) != {1}:
        return "it follows a 1x1 convolution with a stride, which does not read every position"
    # padding="valid" and "same" are no padding here
    if not isinstance(layer.padding, str) and any(layer.padding):
        return "it follows a 1x1 convolution with padding"
    return ""


def check_layer(chains: Chains, calls: list[Call], layer: Any) -> None:
    """Check that a scale and a shift can be folded into a layer.

    Args:
        chains: of the network's run.
        calls: the calls of the layer.
        layer: what has replaced it, or the layer itself.

    Raises:
        Unusable: it cannot take them.
    """
    chains.check(calls[0].module)
    given, taken = calls[0].given, calls[0].taken
    if given is None or taken is None:
        raise Unusable("it takes or returns no tensor")
    if isinstance(layer, nn.Linear) and any(call.given is None or len(call.given.shape) != 2 for call in calls):
        raise Unusable("the channels of its output are not on the last axis")
    if not isinstance(layer, nn.Linear) and any(call.given is None or _is_single(layer, call.given) for call in calls):
        raise Unusable("it takes a map without a batch axis, where a batch norm has other channels")
    if type(layer) not in _EXACT:
        if any(len(call.args) != 1 or call.kwargs for call in calls):
            raise Unusable(f"a {type(layer).__name__} that takes more than a map may do more than a convolution")
        if isinstance(layer, _TRANSPOSED) or not isinstance(layer.weight, Tensor):
            raise Unusable(f"a {type(layer).__name__} may do more than a convolution")
        generator = torch.Generator().manual_seed(1)
        scale, bias = torch.rand((2, out_channels(layer)), generator=generator, dtype=torch.float64) + 0.5
        affine = Affine(scale, bias)
        exact = copy.deepcopy(layer).cpu().double()
        if not same_function(_Then(exact, affine), fold_into(exact, affine), small_shapes(taken.shape, longest=40)):
            raise Unusable(f"a {type(layer).__name__} does more than a convolution")


def _is_single(layer: Any, given: Value) -> bool:
    """Return whether a convolution returned the map of one sample, (C, *spatial)."""
    return len(given.shape) < len(layer.kernel_size) + 2


@torch.no_grad()
def fold_into(layer: Any, affine: Affine) -> Any:
    """Return a copy of a layer that computes the layer followed by a scale and a shift of each output channel.

    Args:
        layer: a convolution or a linear layer.
        affine: the scale and the shift, (C_out,) each.

    Raises:
        Unusable: the product overflows the layer's precision.
    """
    folded, weight = copy.deepcopy(layer), layer.weight
    exact, scale = weight.detach().double(), affine.scale.to(weight.device)
    if isinstance(layer, _TRANSPOSED):  # (C_in, C_out / groups, ...)
        inputs, outputs, *kernel = exact.shape
        rows = scale.view(layer.groups, 1, outputs).expand(layer.groups, inputs // layer.groups, outputs)
        exact = exact * rows.reshape(inputs, outputs, *[1] * len(kernel))
    else:
        exact = exact * scale.view(-1, *[1] * (exact.ndim - 1))
    bias = affine.shift.to(weight.device)
    if layer.bias is not None:
        bias = layer.bias.detach().double() * scale + bias
    folded.weight = nn.Parameter(exact.to(weight.dtype), requires_grad=False)
    folded.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
    for one, rounded in ((exact, folded.weight), (bias, folded.bias)):
        if bool((one.isfinite() & ~rounded.isfinite()).any()):
            raise Unusable(f"folded weights would exceed the range of {str(weight.dtype).removeprefix('torch.')}")
    return folded


def dense_rows(layer: Any) -> Tensor:
    """Return the weight of a 1x1 convolution as a matrix (C_out, C_in) in float64, zero between groups."""
    weight: Tensor = layer.weight.detach().double().flatten(1)
    outputs, inputs = weight.shape
    dense = weight.new_zeros(layer.groups, outputs // layer.groups, layer.groups, inputs)
    for group, rows in enumerate(weight.chunk(layer.groups)):
        dense[group, :, group] = rows
    return dense.view(outputs, layer.groups * inputs)


class _Then(nn.Module):
    """A layer, and a scale and a shift of its output, for a comparison."""

    def __init__(self, layer: nn.Module, affine: Affine) -> None:
        super().__init__()
        self._layer, self._affine = layer, affine

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._layer(x)
        shape = (-1, *[1] * (y.ndim - 2))
        return y * self._affine.scale.view(shape) + self._affine.shift.view(shape)
