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
# ONNX Runtime computes in blocks of up to so many channels, where it can: convolutions with groups of whole blocks, and
# these functions after them. Elsewhere, pools and resized gates would rearrange the map.
_BLOCK = 16
_BLOCKED = {"leaky_relu", "relu", "sigmoid", "silu", "tanh"}


def forms_at(forms: Forms, run: Trace, taken: Value | None) -> Forms:
    """Return the form of SE on a map.

    Args:
        forms: of the engine.
        run: of the network.
        taken: the map.
    """
    if forms.product == "broadcast" or _is_blocked(run, taken):
        return forms
    return replace(forms, squeeze="mean", product="broadcast")


def _is_blocked(run: Trace, value: Value | None) -> bool:
    """Return whether ONNX Runtime makes a map in its blocked layout."""
    maker = None if value is None else run.producer(value)
    while maker is not None and (maker.name in _BLOCKED or "batch_norm" in maker.name):
        maker = run.producer(maker.inputs[0])
    if maker is None or maker.name != "convolution":
        return False
    _, weight, _, _, _, _, transposed, _, groups = maker.args
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    depthwise = inputs == outputs == 1 and groups % _BLOCK == 0
    whole = inputs % _BLOCK == 0 and outputs % _BLOCK == 0
    return not transposed and (groups == 1 or depthwise or whole)


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
