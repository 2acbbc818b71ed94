"""Choose the form of each SE by its map on the example."""

import math
from dataclasses import replace
from typing import Any

from torch import nn

from senet.deployment.rewriting.forms import Forms
from senet.graph.operations import Call, Trace, Value

__all__ = ["forms_at", "scales_weights"]

# Weights are scaled and then rearranged for the convolution; a map is scaled only.
_FEWER = 2
# Operations that ONNX Runtime does not compute in its blocked layout: pools and resized gates would rearrange the map.
_NOT_BLOCKED = {"gelu", "hardswish", "mish", "native_group_norm", "native_layer_norm"}


def forms_at(forms: Forms, run: Trace, taken: Value | None) -> Forms:
    """Return the form of SE on a map.

    Args:
        forms: of the engine.
        run: of the network.
        taken: the map.
    """
    maker = None if taken is None else run.producer(taken)
    if forms.product == "resized" and maker is not None and maker.name in _NOT_BLOCKED:
        return replace(forms, squeeze="mean", product="broadcast")
    return forms


def scales_weights(forms: Forms, layer: Any, calls: list[Call], channels: int) -> bool:
    """Return whether gates scale the weights of a layer instead of its input or output map.

    Args:
        forms: of the engine.
        layer: a 1x1 convolution.
        calls: its calls.
        channels: of the map that is not scaled: each channel of the other one has as many weights.
    """
    if forms.weights == "never" or type(layer) is not nn.Conv2d or layer.groups > 1:
        return False
    taken = [call.taken for call in calls]
    return all(
        one is not None and len(one.shape) == 4 and math.prod(one.shape[2:]) > _FEWER * channels for one in taken
    )
