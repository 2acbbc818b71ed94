"""Convolutions that compute their weight in each forward, as weight standardization does: one with that weight."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from senet.graph.comparing import same_function, small_shapes

__all__ = ["plain_convolution"]

_PLAIN: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class _Weights(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the weights of convolutions that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.found.append(args[1])
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def plain_convolution(layer: Any, shape: tuple[int, ...]) -> nn.Module | None:
    """Return a convolution of torch.nn that computes what a convolution of another class does; None if none does.

    Args:
        layer: a subclass of `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` that is not transposed.
        shape: of its input.
    """
    if type(layer) in _PLAIN.values() or isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return None
    if not isinstance(layer.weight, Tensor) or len(shape) != 2 + len(layer.kernel_size):
        return None
    exact = copy.deepcopy(layer).cpu().double().eval()
    shapes = small_shapes(shape, longest=40)
    try:
        with _Weights() as weights:
            exact(torch.ones(shapes[0], dtype=torch.float64))
        if [weight.shape for weight in weights.found] != [layer.weight.shape]:
            return None
        plain = _with_weight(exact, weights.found[0])
        if not same_function(exact, plain, shapes):
            return None
    except Exception:  # whatever its own code raises where it takes other maps
        return None
    return plain.to(layer.weight.device, layer.weight.dtype)


def _with_weight(layer: Any, weight: Tensor) -> nn.Module:
    options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}
    sizes = layer.in_channels, layer.out_channels, layer.kernel_size
    plain: nn.Module = _PLAIN[len(layer.kernel_size)](*sizes, bias=layer.bias is not None, device="meta", **options)
    plain.weight = nn.Parameter(weight.clone(), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    return plain.eval()
