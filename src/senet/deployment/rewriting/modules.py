"""The modules of a rewritten network that are not PyTorch's: layers of torch.nn, called in a fixed order.

They run in evaluation only, and hold no hooks and no custom operators: every tool that traces, exports, compiles,
quantizes or pickles a network takes them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from senet.nn.window import Window, slides, spread, squeeze_windows

__all__ = ["ChannelScale", "InferenceSE", "PointwiseSE", "SEGates", "SqueezeForm", "WithSE"]

SqueezeForm = Literal["mean", "pool", "kernel", "max", "mean+max", "none"]

_F = nn.functional
_POOLS: dict[int, Any] = {1: _F.adaptive_avg_pool1d, 2: _F.adaptive_avg_pool2d, 3: _F.adaptive_avg_pool3d}
_KERNELS: dict[int, Any] = {1: _F.avg_pool1d, 2: _F.avg_pool2d, 3: _F.avg_pool3d}
_HALVES = (torch.float16, torch.bfloat16)


class SEGates(nn.Module):
    """The gates of SE: squeeze, layers, gate (paper equations 2 and 3).

    Args:
        layers: from the squeeze to the gates: linear layers or 1x1 convolutions, activation and gate between them.
        squeeze: "mean"; "pool" and "kernel", the same as an adaptive average pool, or one whose kernel is the map;
            "max"; "mean+max", half of each; or "none".
        axes: the number of spatial axes.
        channels_last: whether maps are (N, *spatial, C).
        gain: a factor of the gates.
        window: lengths of the window over which larger maps are squeezed, see `senet.set_window`; None squeezes the
            whole map.
    """

    def __init__(
        self,
        layers: nn.Sequential,
        squeeze: SqueezeForm,
        axes: int,
        *,
        channels_last: bool = False,
        gain: float = 1.0,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.squeeze = squeeze
        self.axes = axes
        self.channels_last = channels_last
        self.gain = gain
        self.window = window
        self.half_dtype = self._half()
        self.flat = isinstance(layers[0], nn.Linear) and not channels_last

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, C, *1), or (N, C, *spatial) for the squeeze "none" and over windows."""
        if self.window is not None:
            return self._scaled(_spread(self.layers(_squeeze_windows(x, self.squeeze, self.window)), x, self.window))
        z = self._squeezed(x)
        s = self.layers(z.flatten(1) if self.flat else z)
        if self.flat:
            for _ in range(self.axes):
                s = s.unsqueeze(-1)
        return self._scaled(s)

    @property
    def one_per_channel(self) -> bool:
        """Whether gates are (N, C, *1)."""
        return not self.channels_last and self.squeeze != "none" and self.window is None

    def _squeezed(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, C, *1)."""
        if self.squeeze == "none":
            return x
        if self.squeeze == "pool":
            return _POOLS[self.axes](x, 1)  # type: ignore[no-any-return]
        if self.squeeze == "kernel":
            return _KERNELS[self.axes](x, x.shape[2:])  # type: ignore[no-any-return]
        space = list(range(1, 1 + self.axes) if self.channels_last else range(2, 2 + self.axes))
        if self.squeeze == "max":
            return x.amax(space, keepdim=True)
        mean = self._mean(x, space)
        return 0.5 * mean + 0.5 * x.amax(space, keepdim=True) if self.squeeze == "mean+max" else mean

    def _mean(self, x: Tensor, space: list[int]) -> Tensor:
        # Sums in half precision overflow or stop growing.
        if self.half_dtype is not None:
            return x.mean(space, keepdim=True, dtype=torch.float32).to(self.half_dtype)
        return x.mean(space, keepdim=True)

    def _half(self) -> torch.dtype | None:
        """Return the dtype of the layers if it is half precision, as a constant for tools that trace."""
        weight: Any = self.layers[0].weight
        return weight.dtype if weight.dtype in _HALVES else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.half_dtype = self._half()
        return self

    def _scaled(self, s: Tensor) -> Tensor:
        return s if self.gain == 1 else s * self.gain

    def extra_repr(self) -> str:
        """Return the squeeze and the gain, which the repr of the layers does not show."""
        gain = "" if self.gain == 1 else f", gain={self.gain:g}"
        return f"squeeze={self.squeeze!r}{gain}" + ("" if self.window is None else f", window={self.window}")


class InferenceSE(nn.Module):
    """SE: a map times its gates.

    Args:
        gates: of the map.
        resized: resize the gates to the map before the product.
    """

    def __init__(self, gates: SEGates, *, resized: bool = False) -> None:
        super().__init__()
        self.gates = gates
        self.resized = resized

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, C, *spatial)."""
        s = self.gates(x)
        return x * (_resized(s, x) if self.resized else s)


class PointwiseSE(nn.Module):
    """A 1x1 convolution followed by SE, whose gates are computed from the input of the convolution.

    The squeeze commutes with the convolution: mean(W h + b) = W mean(h) + b. So the map that is squeezed has the input
    channels, and the first layer of SE is composed with the convolution.

    Args:
        conv: the convolution.
        gates: of the convolution's output, from its input.
        resized: resize the gates to the map before the product.
    """

    def __init__(self, conv: nn.Module, gates: SEGates, *, resized: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.gates = gates
        self.resized = resized

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, *spatial) -> (N, C_out, *spatial)."""
        s = self.gates(x)
        # In place: another map would cost as much time as the product.
        return self.conv(x).mul_(_resized(s, x) if self.resized else s)  # type: ignore[no-any-return]


class ChannelScale(nn.Module):
    """A constant factor of each channel, in place of SE whose gates do not depend on the map.

    Args:
        scale: the factors, in the shape that broadcasts against a map: (C, *1), or (C,) for (N, *spatial, C).
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, C, *spatial)."""
        return x * self.scale


class WithSE(nn.Module):
    """A module with SE on its input or output.

    Args:
        module: the module.
        before: SE on its first argument.
        after: SE on its output.
    """

    def __init__(self, module: nn.Module, before: Sequence[nn.Module], after: Sequence[nn.Module]) -> None:
        super().__init__()
        self.before = nn.Sequential(*before)
        self.module = module
        self.after = nn.Sequential(*after)

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Return the output of the module, a map (N, C, *spatial) with SE after it."""
        return self.after(self.module(self.before(x), *args, **kwargs))  # type: ignore[no-any-return]


def _resized(s: Tensor, x: Tensor) -> Tensor:
    """Return gates (N, C, 1, 1) as a map of the size of `x`."""
    return _F.interpolate(s, scale_factor=[float(side) for side in x.shape[2:]], mode="nearest")


def _squeeze_windows(x: Tensor, how: SqueezeForm, window: Window) -> Tensor:
    if slides(window, x):
        return squeeze_windows(x, "max" if how == "max" else "avg", window)
    space = tuple(range(2, x.ndim))
    return x.amax(space, keepdim=True) if how == "max" else x.mean(space, keepdim=True)


def _spread(s: Tensor, x: Tensor, window: Window) -> Tensor:
    return spread(s, x, window)


# Leaves of torch.fx, since they read shapes.
torch.fx.wrap("_squeeze_windows")
torch.fx.wrap("_spread")
