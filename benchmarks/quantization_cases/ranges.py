"""Which value of SE loses how much in 8 bits: each one alone is rounded, and its effect on SE's output measured."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quantization_cases.cases import decibels
from senet import SEBatchNorm, SqueezeExcitation

__all__ = ["effects"]


@torch.no_grad()
def effects(model: nn.Module, images: Tensor) -> list[dict[str, Any]]:
    """Return a row for each SE at a batch norm.

    Each value gets one scale and zero point for all channels, from its smallest and largest value, as engines have it.

    Args:
        model: in evaluation mode.
        images: (N, C, H, W), normalized.

    Returns:
        Rows of: module; quartiles of the gates; the signal-to-noise ratio of SE's output in dB with one of its values
        in 8 bits; and the range of the map relative to the range of the output.
    """
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, SEBatchNorm)]
    inputs: dict[str, Tensor] = {}
    hooks = [norm.register_forward_hook(_keep(inputs, name)) for name, norm in norms]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [{"module": name} | _effects(norm, inputs[name]) for name, norm in norms]


def _keep(inputs: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        inputs[name] = args[0].double()

    return keep


def _effects(norm: SEBatchNorm, y: Tensor) -> dict[str, Any]:
    se: Any = norm.se
    assert isinstance(se, SqueezeExcitation)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.weight / (norm.running_var + float(norm.eps)).sqrt()).double()
    shift = norm.bias.double() - scale * norm.running_mean.double()
    u = y * scale[:, None, None] + shift[:, None, None]

    def output(rounded: str = "", how: Callable[[Tensor], Tensor] = _eight_bits) -> tuple[Tensor, Tensor]:
        def value(name: str, x: Tensor) -> Tensor:
            return how(x) if name == rounded else x

        z = value("squeeze", u.mean((2, 3)))
        hidden = value("hidden units", se.activation(_layer(se.fc1, z)))
        logits = value("before the gate", _layer(se.fc2, hidden))
        gates = value("gate", se.gate(logits) * se.gain_value)
        return value("output", value("map", u) * gates[:, :, None, None]), gates

    exact, gates = output()
    names = ("map", "squeeze", "hidden units", "before the gate", "gate", "output")
    ratios = {name: decibels(exact.numpy(), output(name)[0].numpy()) for name in names}
    ratios["map, by channel"] = decibels(exact.numpy(), output("map", _by_channel)[0].numpy())
    step = (u.amax() - u.amin()) / 255
    ratios["squeeze, in steps of the map"] = decibels(
        exact.numpy(), output("squeeze", lambda z: (z / step).round() * step)[0].numpy()
    )
    return {
        "gates": [
            float(value) for value in torch.quantile(gates.flatten(), torch.tensor([0, 0.25, 0.5, 0.75, 1.0]).double())
        ],
        "decibels": ratios,
        "range of the map": float((u.amax() - u.amin()) / (exact.amax() - exact.amin())),
    }


def _layer(layer: nn.Linear, x: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.double()
    return nn.functional.linear(x, layer.weight.double(), bias)


def _eight_bits(x: Tensor) -> Tensor:
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-30)
    return ((x - low) / step).round() * step + low


def _by_channel(x: Tensor) -> Tensor:
    return torch.stack([_eight_bits(x[:, channel]) for channel in range(x.shape[1])], 1)
