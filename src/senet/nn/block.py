"""The Squeeze-and-Excitation block: the paper's equations 2 to 4, with every option that the paper tries."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from senet.nn.attention import ATTENTIONS
from senet.nn.initialization import IDENTITY_STARTS, RECTIFIERS, initialize_layers, open_units
from senet.nn.symbolic import emit_call
from senet.nn.window import Window, check_window, slides, spread, squeeze_windows
from senet.utils.arguments import argument, argument_name
from senet.utils.choices import Attention, Gate, Squeeze, check_choice
from senet.utils.errors import not_scriptable
from senet.utils.limits import MOST_CHANNELS, check_at_most
from senet.utils.modes import is_traced
from senet.utils.option_types import check_integer, check_number, check_switch

__all__ = ["ACTIVATIONS", "GATES", "SQUEEZES", "SqueezeExcitation", "hidden_width", "squeeze"]

Activation = Literal["relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "mish", "tanh"]

SQUEEZES: tuple[Squeeze, ...] = get_args(Squeeze)

GATES: dict[Gate, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "hard_sigmoid": nn.Hardsigmoid,
}

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hard_swish": nn.Hardswish,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
}


def hidden_width(channels: int, reduction: float) -> int:
    """Units in the excitation's hidden layer: C / r, rounded half up where r does not divide C, never below 1.

    Args:
        channels: C, of the map that the block recalibrates.
        reduction: the ratio r (paper section 3.2), 1 or more; need not be an integer.

    Raises:
        ValueError: `reduction` is below 1 or not finite.
    """
    if not (math.isfinite(reduction) and reduction >= 1):
        raise ValueError(
            f"{argument_name('reduction')} must be a finite number of 1 or more, got {reduction:g}; the paper uses 16"
        )
    return max(1, math.floor(channels / reduction + 0.5))


class SqueezeExcitation(nn.Module):
    r"""Channel attention by a squeeze, an excitation and a scaling (paper section 3).

    For a map u of C channels over H x W positions, of any spatial rank here, the paper's equations are:

        (2)  z_c = 1 / (H W) * sum over i, j of u_c(i, j)              squeeze
        (3)  s   = sigmoid(W2 relu(W1 z)),  W1: C/r x C, W2: C x C/r   excitation
        (4)  x_c = s_c * u_c                                           scale

    The two layers of equation 3 are `fc1` and `fc2`, always `torch.nn.Linear`; state dicts of timm's `SEModule` and
    torchvision's `SqueezeExcitation`, where they are 1x1 convolutions, load unchanged.

    Other kinds of channel attention differ in the excitation alone, and are rows of `senet.nn.attention.ATTENTIONS`.
    They have no hidden layer: `fc1` and `activation` are `torch.nn.Identity`, and `fc2` is their layer. State dicts of
    timm's `EcaModule` and `EffectiveSEModule` load unchanged.

    Args:
        channels: C, the channels of the map.
        reduction: the ratio r: the hidden layer has C / r units, rounded half up where r does not divide C, and
            at least one. Ignored if `hidden_channels` is given; only 16 for kinds without a hidden layer.
        hidden_channels: units of the hidden layer, instead of C / r.
        attention: "se" is equation 3. "eca" is a convolution over neighbouring channels (ECA-Net, arXiv 1910.03151),
            "ese" one linear layer from C to C channels (effective SE, arXiv 1911.06667).
        squeeze: "avg" is equation 2; "max" takes the maximum over space (Table 11); "none" squeezes nothing, and
            the two layers act at each position as 1x1 convolutions do (NoSqueeze, Table 16).
        gate: "sigmoid" is equation 3; "tanh" and "relu" are in Table 12; "hard_sigmoid" is
            relu6(x + 3) / 6, as mobile networks use. Default: "hard_sigmoid" for "ese", "sigmoid" for the others.
        activation: between the two layers: "relu" in equation 3, or another name of `ACTIVATIONS`.
        bias: whether the layers have biases. The authors' released networks have them, their ablations do not.
            Default: False for "eca", True for the others.
        gain: a constant factor of the gate, inside `excite`. Other than 1, it is a persistent buffer `gain`, so that
            weights with and without it do not load into each other's blocks. `gain_value` is its value as a Python
            number, which follows the buffer when weights are loaded.
        window: size of the maps in training, as (h, w), one length for each spatial axis, or an integer for all. In
            evaluation, a position of a larger map is gated by the squeeze of the window around it; windows are shifted
            inside the map at its borders. Maps that are no larger, and all maps in training, are squeezed whole, as
            with None. It can be changed at any time, see `senet.set_window`.

    Raises:
        TypeError: `channels` or `hidden_channels` is not an integer, `reduction` or `gain` not a number, `bias` not
            True or False, or `window` not integers.
        ValueError: `channels`, `reduction`, `hidden_channels` or a length of `window` below 1; an attention, squeeze,
            gate or activation with an unknown name; `hidden_channels`, or a `reduction` other than 16, of a kind
            without a hidden layer; a gain that is zero or not finite; a window with the squeeze "none".

    Examples:
        >>> se = senet.SqueezeExcitation(64, reduction=16)
        >>> u = torch.randn(2, 64, 14, 14)
        >>> se(u).shape
        torch.Size([2, 64, 14, 14])
        >>> se.excite(u.mean((2, 3))).shape  # the gates
        torch.Size([2, 64])
    """

    gain: Tensor | None
    # Defaults for blocks in old pickles.
    window: Window | None = None
    attention: Attention = "se"
    init = "paper"
    _gain: float | None = None
    # Id and version of the buffer `gain` when its value was last read; the version is None if it does not show changes.
    _gain_read: tuple[int, int | None] | None = None

    def __init__(
        self,
        channels: int,
        reduction: float = 16,
        *,
        hidden_channels: int | None = None,
        attention: Attention = "se",
        squeeze: Squeeze = "avg",
        gate: Gate | None = None,
        activation: Activation = "relu",
        bias: bool | None = None,
        gain: float = 1.0,
        window: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_integer("channels", channels)
        check_number("reduction", reduction)
        if hidden_channels is not None:
            check_integer("hidden_channels", hidden_channels)
        check_choice("attention", attention, Attention)
        kind = ATTENTIONS[attention]
        gate = kind.gate if gate is None else gate
        bias = kind.bias if bias is None else bias
        check_switch("bias", bias)
        check_number("gain", gain)
        if channels < 1:
            raise ValueError(f"channels must be 1 or more, got {channels}; it is the number of the map's channels")
        check_at_most("channels", channels, MOST_CHANNELS)
        check_at_most("hidden_channels", hidden_channels, MOST_CHANNELS)
        if not kind.hidden:
            for name, value, default in (("hidden_channels", hidden_channels, None), ("reduction", reduction, 16)):
                if value != default:
                    raise ValueError(
                        f"{argument('attention', attention)} has no hidden layer, and {argument_name(name)} {value:g} "
                        f"has no effect without one; omit it, or use {argument('attention', 'se')}"
                    )
        elif hidden_channels is None:
            hidden_channels = hidden_width(channels, reduction)
        elif hidden_channels < 1:
            raise ValueError(
                f"hidden_channels must be 1 or more, got {hidden_channels}: a block without hidden units is constant; "
                f"omit it to use channels / reduction"
            )
        check_choice("squeeze", squeeze, Squeeze)
        check_choice("gate", gate, Gate)
        check_choice("activation", activation, Activation)
        if not math.isfinite(gain) or gain == 0:
            raise ValueError(f"gain must be finite and not 0, got {gain}; 1 keeps the gate unchanged")

        self.channels = channels
        self.hidden_channels = hidden_channels
        self.attention = attention
        self.squeeze = squeeze
        self.window = check_window(window, squeeze)
        self.gate_name = gate
        self.activation_name = activation
        self.fc1: Any = nn.Identity()
        self.activation: nn.Module = nn.Identity()
        if kind.last is not None:
            self.fc2: Any = kind.last(channels, bias)
        elif hidden_channels is not None:
            self.fc1 = nn.Linear(channels, hidden_channels, bias=bias)
            self.activation = ACTIVATIONS[activation]()
            self.fc2 = nn.Linear(hidden_channels, channels, bias=bias)
        self.gate = GATES[gate]()
        self._gain = float(gain)
        self.register_buffer("gain", None if gain == 1 else torch.tensor(self._gain))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the layers and the gain again, as `init` specifies; do nothing on the meta device.

        The paper's initialization is He's, with zero biases; for identity see `initialize_as_identity`.
        """
        initialize_layers(self.fc1, self.fc2, self.init, self.gate_name, self.activation_name)
        self._restore_gain()

    def initialize_as_identity(self, mean: Tensor | None = None) -> None:
        """Initialize the block so that every gate is exactly 1 and still learns, now and at each `reset_parameters`.

        Args:
            mean: (C,), sign of the squeeze's mean, see `senet.nn.initialization.open_units`; None for a map that is not
                negative.

        Raises:
            ValueError: the gate with this gain and bias has no identity initialization.
        """
        gain, last_bias = IDENTITY_STARTS.get(self.gate_name, (None, 0.0))
        if gain != self.gain_value or (last_bias and self.fc2.bias is None):
            raise ValueError(
                f"gate {self.gate_name!r} with gain={self.gain_value:g} and bias={self.fc2.bias is not None} has no "
                f"identity initialization; build the block with a gate, gain and bias of {IDENTITY_STARTS}"
            )
        self.init = "identity"
        self.reset_parameters()
        self._open(mean)

    def expect(self, mean: Tensor | None) -> None:
        """Activate hidden units for a squeeze with this mean, if the block still has its identity initialization.

        Args:
            mean: (C,), by sign; None for a map that is not negative.
        """
        last = self.fc2.weight.detach()
        if self.init == "identity" and _has_value(last) and not last.any():
            self._open(mean)

    def _open(self, mean: Tensor | None) -> None:
        if self.hidden_channels is not None and self.activation_name in RECTIFIERS:
            open_units(self.fc1, mean)

    @property
    def gain_value(self) -> float:
        """The gain as a Python number, also on the meta device.

        It follows the buffer: a replaced or modified buffer is read again, which synchronizes with the device. A change
        through `gain.data`, which PyTorch does not count, is not detected.
        """
        gain = self._buffers["gain"]
        if gain is None:
            return 1.0
        if _has_value(gain) and not self._is_read(gain):
            # DistributedDataParallel copies the same value into each buffer before each step; read it only once.
            before, same = self._gain, self._gain_read is not None and self._gain_read[0] == id(gain)
            self._read_gain(gain)
            if same and self._gain == before:
                self._gain_read = (id(gain), None)
        return 1.0 if self._gain is None else self._gain

    def _is_read(self, gain: Tensor) -> bool:
        if self._gain is None or torch._C._len_torch_dispatch_stack() > 0:  # fake tensors have no value
            return self._gain is not None
        return self._gain_read is not None and (
            self._gain_read[0] == id(gain) and self._gain_read[1] in (None, _version(gain))
        )

    def _read_gain(self, gain: Tensor) -> None:
        value = float(gain)
        if self._gain is None or value != float(torch.tensor(self._gain, dtype=gain.dtype)):  # the buffer is rounded
            self._gain = value
        self._gain_read = (id(gain), _version(gain))

    def _restore_gain(self) -> None:
        if self.gain is not None and not self.gain.is_meta:
            self.gain.fill_(self.gain_value if self._gain is None else self._gain)
            self._gain_read = (id(self.gain), _version(self.gain))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        without_value = self.gain is not None and self.gain.is_meta
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if without_value:  # `to_empty`: FSDP and others reset only parameters
            self._restore_gain()
        elif self.gain is not None and self._gain_read is not None:  # moved or converted
            self._gain_read = (id(self.gain), _version(self.gain))
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this block, including `channels`; `attention` and `window` if given."""
        return {
            "channels": self.channels,
            **({} if self.attention == "se" else {"attention": self.attention}),
            **({} if self.hidden_channels is None else {"hidden_channels": self.hidden_channels}),
            "squeeze": self.squeeze,
            "gate": self.gate_name,
            "activation": self.activation_name,
            "bias": self.fc2.bias is not None,
            "gain": self.gain_value,
            **({} if self.window is None else {"window": self.window}),
        }

    def slides(self, u: Tensor) -> bool:
        """Return whether a map (N, C, *spatial) is squeezed over windows: in evaluation, if it is larger than one.

        Raises:
            ValueError: the map has another number of spatial axes than the window.
        """
        return self.window is not None and not self.training and slides(self.window, u)

    def excite(self, z: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        """Compute the excitation (equation 3) times the gain, calling this block's modules, so that their hooks run.

        Args:
            z: (N, C), the squeezed map; for the squeeze "none" (N, *spatial, C), the channels-last map; over windows
                (N, *windows, C).

        Returns:
            The gates, of z's shape.
        """
        s: Tensor = self.gate(self.fc2(self.activation(self.fc1(z))))
        return s if self.gain is None else s * self.gain

    def forward(self, input: Float[Tensor, "N C *spatial"]) -> Float[Tensor, "N C *spatial"]:
        """Recalibrate a map.

        Args:
            input: the map u, (N, C, *spatial), with one spatial axis or more.

        Returns:
            (N, C, *spatial), of u's dtype and memory format.

        Raises:
            ValueError: u has no spatial axis, another number of them than the window, or another number of channels
                than the block.
        """
        if self.window is None:
            return _scale(input, self.excite(squeeze(input, self.squeeze, self.channels)))
        # One node of a symbolic trace, which follows train() and eval().
        call = emit_call(self, (input,), {})
        if call is not None:
            return call  # type: ignore[no-any-return]
        window = None if self.training else self.window
        return _scale(input, self.excite(squeeze(input, self.squeeze, self.channels, window)), window)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        names = (parameter for parameter in ("weight", "bias") if ATTENTIONS[self.attention].key)
        for name in names:  # of timm's module
            tensor = state_dict.pop(f"{prefix}{ATTENTIONS[self.attention].key}.{name}", None)
            if tensor is not None:
                state_dict[f"{prefix}fc2.{name}"] = tensor
        # timm and torchvision store the two layers as 1x1 convolutions: with trailing axes of length 1.
        for key in (prefix + "fc1.weight", prefix + "fc2.weight"):
            weight = state_dict.get(key)
            if weight is not None and weight.ndim > 2 and all(n == 1 for n in weight.shape[2:]):
                state_dict[key] = weight.flatten(1)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + "gain" in state_dict and self.gain is not None and _has_value(self.gain):
            self._read_gain(self.gain)

    def __prepare_scriptable__(self) -> NoReturn:
        raise not_scriptable(self)

    def extra_repr(self) -> str:
        """Return channels and squeeze, which the repr of the submodules does not show."""
        gain = "" if self.gain is None else f", gain={self.gain_value:g}"
        window = "" if self.window is None else f", window={self.window}"
        hidden = "" if self.hidden_channels is None else f", hidden_channels={self.hidden_channels}"
        kind = "" if self.attention == "se" else f", attention={self.attention!r}"
        return f"{self.channels}{hidden}{kind}, squeeze={self.squeeze!r}{window}{gain}"


def _version(x: Tensor) -> int | None:
    """Return how often a tensor was changed in place; None for inference tensors, which do not count it."""
    return None if x.is_inference() else x._version


def _has_value(x: Tensor) -> bool:
    """Return whether Python can read a tensor: not if it is on the meta device, fake or distributed."""
    return type(x) is Tensor and not x.is_meta


# The two functions below are leaves for torch.fx, since they read shapes.


def squeeze(
    u: Float[Tensor, "N C *spatial"], how: Squeeze, channels: int, window: Window | None = None
) -> Float[Tensor, "N ..."]:
    """Compute equation 2: (N, C, *spatial) -> (N, C); for "none" (N, *spatial, C), over windows (N, *windows, C)."""
    if u.ndim < 3:
        raise ValueError(f"expected a map (N, C, *spatial) with a spatial axis, got shape {tuple(u.shape)}")
    if not is_traced() and u.shape[1] != channels:  # a trace would record the comparison as a constant
        raise ValueError(
            f"expected {channels} channels on axis 1, got shape {tuple(u.shape)}; build the block with {u.shape[1]}"
        )
    if how == "none":
        return u.movedim(1, -1)
    if window is not None and slides(window, u):
        return squeeze_windows(u, how, window).movedim(1, -1)
    space = tuple(range(2, u.ndim))
    if how == "max":
        return u.amax(space)
    # Sums in half precision overflow (float16 ends at 65,504) or stop growing: average in float32.
    if u.dtype in (torch.float16, torch.bfloat16):
        return u.mean(space, dtype=torch.float32).to(u.dtype)
    return u.mean(space)


def _scale(
    u: Float[Tensor, "N C *spatial"], s: Float[Tensor, "N ..."], window: Window | None = None
) -> Float[Tensor, "N C *spatial"]:
    """Compute equation 4, with gates as `squeeze` returns the squeeze."""
    s = s.to(u.dtype)  # under autocast gates and map may differ in dtype
    if s.ndim != u.ndim:
        return u * s.reshape(*s.shape, *[1] * (u.ndim - 2))
    s = s.movedim(-1, 1)
    return u * (s if window is None else spread(s, u, window))


torch.fx.wrap("squeeze")
torch.fx.wrap("_scale")
