"""Rebuild SE of any library as plain layers, in the forms of an engine."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from senet.deployment.rewriting.batch_norms import affine_of, is_norm
from senet.deployment.rewriting.forms import Forms
from senet.deployment.rewriting.modules import SEGates, SqueezeForm
from senet.graph.chains import Unusable
from senet.graph.elementwise import plain_functions
from senet.graph.se_modules import SEUnit
from senet.nn.block import SqueezeExcitation

__all__ = ["PlainExcitation", "read_excitations"]

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_SQUEEZES: dict[str, SqueezeForm] = {"avg": "mean", "max": "max", "avg+max": "mean+max", "none": "none"}
# Weight (C_out, C_in) and bias (C_out,) of a layer, in float64.
Matrix = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class PlainExcitation:
    """SE as numbers and functions.

    Attributes:
        layers: one or two; a batch norm between them is folded into the first.
        functions: after each layer.
        unit: the SE module.
        axes: the number of spatial axes of its map.
    """

    layers: tuple[Matrix, ...]
    functions: tuple[nn.Module, ...]
    unit: SEUnit
    axes: int

    def gates(self, forms: Forms, dtype: torch.dtype | None = None) -> SEGates:
        """Return the gates from the map, in the dtype of the SE module unless given."""
        unit = self.unit
        window = unit.module.window if isinstance(unit.module, SqueezeExcitation) else None
        squeeze = _SQUEEZES[unit.squeeze]
        if unit.axis == 1 and squeeze == "mean" and window is None:
            squeeze = forms.squeeze
        linear = unit.axis == -1 or (forms.layers == "linear" and squeeze != "none" and window is None)
        options: dict[str, Any] = {"channels_last": unit.axis == -1, "gain": unit.gain, "window": window}
        return SEGates(self._sequence(self.layers, linear, dtype), squeeze, self.axes, **options)

    def gates_before(self, weight: Tensor, bias: Tensor, forms: Forms) -> SEGates:
        """Return the gates from the input of the 1x1 convolution that makes the map; the squeeze is a mean.

        Args:
            weight: (C_out, C_in) of the convolution, in float64.
            bias: (C_out,).
            forms: the forms of the layers.
        """
        (first, shift), *rest = self.layers
        composed = (first @ weight, first @ bias if shift is None else first @ bias + shift)
        layers = self._sequence((composed, *rest), forms.layers == "linear")
        return SEGates(layers, forms.squeeze, self.axes, gain=self.unit.gain)

    def _sequence(self, layers: tuple[Matrix, ...], linear: bool, dtype: torch.dtype | None = None) -> nn.Sequential:
        """Return layers and functions in their order; the layers are linear or 1x1 convolutions."""
        names = ("expand", "gate") if len(layers) == 1 else ("reduce", "activation", "expand", "gate")
        like: Any = self.unit.expand.weight
        like = torch.empty(0, dtype=dtype or like.dtype, device=like.device)
        parts: list[nn.Module] = []
        for (weight, bias), function in zip(layers, self.functions, strict=True):
            parts += [_layer(weight, bias, None if linear else self.axes, like), copy.deepcopy(function)]
        return nn.Sequential(OrderedDict(zip(names, parts, strict=True))).eval()


def read_excitations(unit: SEUnit, axes: int) -> Iterator[PlainExcitation]:
    """Yield what an SE module may be; more than one where functions between its layers are known by no name.

    Args:
        unit: the SE module.
        axes: the number of spatial axes of its map.

    Raises:
        Unusable: it has a part that is none of the known ones.
    """
    layers = [_matrix(unit.expand)]
    functions = [plain_functions(unit.gate)]
    if unit.reduce is not None:
        weight, bias = _matrix(unit.reduce)
        if unit.norm is not None:
            norm: Any = unit.norm
            if not is_norm(norm) or norm.running_mean is None or norm._modules:
                raise Unusable(f"it normalizes by {type(norm).__name__}")
            affine = affine_of(norm)
            bias = affine.shift if bias is None else bias * affine.scale + affine.shift
            weight = weight * affine.scale[:, None]
        layers.insert(0, (weight, bias))
        functions.insert(0, plain_functions(unit.activation or nn.Identity()))
    for chosen in product(*functions):
        yield PlainExcitation(tuple(layers), chosen, unit, axes)


def _matrix(layer: Any) -> Matrix:
    weight = layer.weight
    if not isinstance(weight, Tensor) or (weight.ndim > 2 and any(n != 1 for n in weight.shape[2:])):
        raise Unusable(f"its layer {type(layer).__name__} reads more than a position")
    if getattr(layer, "groups", 1) != 1:
        raise Unusable("its layers have groups")
    bias = None if layer.bias is None else layer.bias.detach().double()
    return weight.detach().double().flatten(1), bias


def _layer(weight: Tensor, bias: Tensor | None, axes: int | None, like: Tensor) -> nn.Module:
    """Return a linear layer, or for a number of axes a 1x1 convolution, on the device and in the dtype of a tensor."""
    outputs, inputs = weight.shape
    options: dict[str, Any] = {"bias": bias is not None, "device": "meta"}
    layer: Any = (
        nn.Linear(inputs, outputs, **options) if axes is None else _CONVOLUTIONS[axes](inputs, outputs, 1, **options)
    )
    weight = weight.view(layer.weight.shape)
    layer.weight = nn.Parameter(weight.to(like.device, like.dtype), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.to(like.device, like.dtype), requires_grad=False)
    found: nn.Module = layer
    return found
