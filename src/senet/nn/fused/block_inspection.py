"""What a backend of the whole operation reads off an SE block, in place of calling the block's modules."""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from senet.nn.block import SqueezeExcitation
from senet.nn.fused.interface import Excitation
from senet.nn.initialization import IDENTITY_STARTS

__all__ = ["excitation", "excitation_of_layers", "has_hooks", "is_plain", "is_watched", "may_be_one", "squeezes_whole"]

# Hooks on every module there is: tables that PyTorch fills and never replaces.
_GLOBAL = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)

_GATES = {nn.Sigmoid: "sigmoid", nn.Hardsigmoid: "hard_sigmoid", nn.Tanh: "tanh", nn.ReLU: "relu"}
_ACTIVATIONS = {nn.ReLU: "relu", nn.SiLU: "silu"}
# Classes of other libraries that compute the same, by their names.
_OTHER_GATES = {"timm.layers.activations.Sigmoid": "sigmoid"}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def has_hooks(module: nn.Module) -> bool:
    """Return whether there are hooks on a module itself."""
    own = module.__dict__  # a module's attributes take longer than all of the rest
    return bool(
        own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    )


def is_watched(module: nn.Module) -> bool:
    """Return whether a call of the module runs more than its class's forward: hooks, or a `forward` set on it."""
    return has_hooks(module) or any(_GLOBAL) or "forward" in module.__dict__


def is_plain(se: SqueezeExcitation) -> bool:
    """Return whether a block squeezes, computes what `SqueezeExcitation` does, and nobody hooks into it as a whole."""
    own = se.__dict__
    plain = type(se).forward is SqueezeExcitation.forward and type(se).excite is SqueezeExcitation.excite
    return (
        plain
        and se.squeeze != "none"
        and "forward" not in own  # of this very block, as accelerate sets it
        and "excite" not in own
        and not has_hooks(se)
    )


def squeezes_whole(se: SqueezeExcitation, y: Tensor) -> bool:
    """Return whether a block is plain, see `is_plain`, and squeezes the whole of a map, not windows of it."""
    return is_plain(se) and not se.slides(y)


def excitation(se: SqueezeExcitation) -> Excitation | None:
    """Read the numbers of a plain block's excitation; None where calling its modules may do anything else.

    That is where a module inside has hooks, is of another class (quantized, parametrized, with adapters) or has a
    `forward` of its own, and where the squeeze, the activation or the gate is none of those that backends know.
    """
    if se.squeeze != "avg" or any(_GLOBAL):
        return None
    modules = se._modules
    fc1, activation, fc2, gate = modules["fc1"], modules["activation"], modules["fc2"], modules["gate"]
    inner, last = _ACTIVATIONS.get(type(activation)), _GATES.get(type(gate))  # type: ignore[arg-type]
    if inner is None or last is None or type(fc1) is not nn.Linear or type(fc2) is not nn.Linear:
        return None
    for module in (fc1, activation, fc2, gate):
        if has_hooks(module) or "forward" in module.__dict__:  # type: ignore[arg-type]
            return None
    gain = se._buffers["gain"]
    first, second = fc1._parameters, fc2._parameters
    w1, w2 = first.get("weight"), second.get("weight")
    if w1 is None or w2 is None or (gain is not None and gain.requires_grad):
        return None
    return Excitation(w1, first.get("bias"), w2, second.get("bias"), se.gain_value, last, inner)


def excitation_of_layers(
    reduce: nn.Module, activation: nn.Module, expand: nn.Module, gate: nn.Module
) -> Excitation | None:
    """Read the numbers of layers of which an SE module of another library consists, linear or 1x1 convolutions.

    Returns:
        The excitation, whose weights are views; None where calling the layers may do anything else, see `excitation`.
    """
    kind = type(gate)
    inner = _ACTIVATIONS.get(type(activation))
    last = _GATES.get(kind) or _OTHER_GATES.get(f"{kind.__module__}.{kind.__qualname__}")
    if inner is None or last is None or any(_GLOBAL):
        return None
    for module in (reduce, activation, expand, gate):
        if has_hooks(module) or "forward" in module.__dict__:
            return None
    first, second = _linear(reduce), _linear(expand)
    return None if first is None or second is None else Excitation(*first, *second, 1.0, last, inner)


def _linear(layer: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Return the weight (out, in) and bias of a linear layer or of a 1x1 convolution; None for other layers."""
    own = layer._parameters
    weight = own.get("weight")
    if weight is None or type(layer) not in (nn.Linear, *_CONVOLUTIONS):
        return None
    if isinstance(layer, _CONVOLUTIONS):
        pointwise = weight.shape[1:].numel() == layer.in_channels and {*layer.stride} == {1}
        if not pointwise or any(layer._reversed_padding_repeated_twice):
            return None
    return weight.flatten(1), own["bias"]


def may_be_one(se: SqueezeExcitation, block: Excitation) -> bool:
    """Return whether every gate is exactly 1, as an identity start leaves it, or may be without a way to look.

    The answer is kept until the last layer changes, so that the device is waited for once.
    """
    gain, last_bias = IDENTITY_STARTS.get(block.gate, (None, 0.0))
    if block.gain != gain:
        return False
    w2, b2 = block.w2, block.b2
    if w2.is_inference() or (b2 is not None and b2.is_inference()):
        return True  # they have no version that would show a change
    state = (id(w2), w2.data_ptr(), w2._version, id(b2), None if b2 is None else b2._version)
    known = se.__dict__.get("_at_one")
    if known is None or known[0] != state:
        if w2.is_cuda and torch.cuda.is_current_stream_capturing():
            return True
        known = se.__dict__["_at_one"] = (state, _is_constant(w2, 0.0) and _is_constant(b2, last_bias))
    return bool(known[1])


def _is_constant(x: Tensor | None, value: float) -> bool:
    return value == 0 if x is None else bool((x.detach() == value).all())
