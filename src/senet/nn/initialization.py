"""Initialization of SE's two layers: the paper's, or identity, which keeps the network's function."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["IDENTITY_STARTS", "RECTIFIERS", "expected_squeeze", "initialize_layers", "open_units"]

# Gain and last bias with which the gate is exactly 1 if the last weights are zero: 2 * sigmoid(0) = 1; relu(1) = 1,
# with a nonzero gradient. tanh(x) * gain = 1 has no exact solution at x = 0.
IDENTITY_STARTS = {"sigmoid": (2.0, 0.0), "hard_sigmoid": (2.0, 0.0), "relu": (1.0, 1.0)}

# Activations that are zero, without gradient, on a half-line.
RECTIFIERS = ("relu", "relu6", "hard_swish")

# The maximum of a normalized map is about this many standard deviations above its mean.
_MAXIMUM = 2.0


def initialize_layers(fc1: nn.Module, fc2: nn.Module, init: str, gate: str, activation: str) -> None:
    """Initialize the layers of a block, and make `reset_parameters` of each repeat it.

    Loops over `model.modules()`, and FSDP for networks on the meta device, reset parents before children. Otherwise the
    layers would end with the initialization of `torch.nn.Linear`.

    Args:
        fc1: C to hidden; `torch.nn.Identity` without a hidden layer.
        fc2: the last layer, hidden to C or C to C.
        init: "paper": He initialization, biases zero (paper section 6). "identity": the last layer is constant, so that
            every gate is 1 with the gain in `IDENTITY_STARTS`, and `fc1` has active units, see `open_units`.
        gate: name of the block's gate.
        activation: name of the activation between the layers.
    """
    identity = init == "identity"
    last_bias = IDENTITY_STARTS[gate][1] if identity else 0.0
    layers: list[tuple[Any, partial[None]]] = [(fc2, partial(_reset_last, fc2, identity, last_bias))]
    if isinstance(fc1, nn.Linear):
        layers.insert(0, (fc1, partial(_reset_first, fc1, identity and activation in RECTIFIERS)))
    for layer, reset in layers:
        layer.reset_parameters = reset
        reset()


def _reset_first(layer: nn.Linear, opened: bool) -> None:
    _he(layer)
    if opened:
        open_units(layer)


def _reset_last(layer: Any, constant: bool, bias: float) -> None:
    if not constant:
        _he(layer)
        return
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


def _he(layer: Any) -> None:
    if layer.weight.is_meta:  # drawing numbers on the meta device imports PyTorch's compiler, in most of a second
        return
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def open_units(fc1: nn.Linear, mean: Tensor | None = None) -> None:
    """Make sure that a hidden unit is active after ReLU; otherwise a zero last layer would get no gradient.

    With two or more hidden units, the second gets the negated weights of the first: for any squeeze z with w z != 0,
    one of w z and -w z is positive. A single unit gets the expected signs of the squeeze. With biases, the first is 1.
    Magnitudes of weights remain those of He initialization, and nothing depends on data.

    So with two units and biases, one is active for every z. A single unit without bias is active if z is not negative,
    or has the signs of `mean`; and for some sample of every batch over which the mean of z is zero.

    Args:
        fc1: C to hidden, initialized.
        mean: (C,), sign of the squeeze's mean. Zero (unknown) and None count as positive, as for maps after a ReLU.
    """
    weight = fc1.weight
    if weight.is_meta:
        return
    if fc1.bias is not None:
        fc1.bias[0] = 1
    if len(weight) > 1:
        weight[1] = -weight[0]
        return
    weight.abs_()
    if mean is not None:
        weight.copy_(torch.where(mean.to(weight.device) < 0, -weight, weight))


def expected_squeeze(module: nn.Module, squeeze: str) -> Tensor | None:
    """Estimate the mean squeeze of a module's output from its parameters.

    The mean of a normalized map is the norm's bias. A convolution's output has the signs of its bias, or without bias
    those of its weights' sums, since its input mostly follows a ReLU; its maximum is mostly positive.

    Args:
        module: the module on whose output SE acts.
        squeeze: "avg", "max" or "none".

    Returns:
        (C,), zero where unknown; None for other modules, or without values.
    """
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if _is_norm(module):
        channels = getattr(module, "num_features", getattr(module, "num_channels", None))
        known = next((x for x in (bias, weight) if isinstance(x, Tensor)), None)
        if known is None:
            known = torch.zeros(channels or 1)
        mean = bias if isinstance(bias, Tensor) else torch.zeros_like(known)
        if squeeze == "max":
            mean = mean + _MAXIMUM * (weight.abs() if isinstance(weight, Tensor) else 1)
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and squeeze != "max":
        mean = module.weight.flatten(1).sum(1) if module.bias is None else module.bias
    else:
        return None
    return None if mean.is_meta else mean.detach()


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module's output is normalized; some of timm's norms include an activation."""
    norm = hasattr(module, "running_mean") or isinstance(module, nn.GroupNorm | nn.LayerNorm)
    return norm and isinstance(getattr(module, "act", None), nn.Identity | None)
