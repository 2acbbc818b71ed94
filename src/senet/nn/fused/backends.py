"""Backends of batch norm with SE, and their selection for each device.

A backend has the passes over maps, between which the excitation uses ordinary autograd, and optionally the whole
operation. Devices are independent: a GPU that Triton's kernels do not support does not affect another one.
"""

import importlib
import os
import warnings
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from senet.nn.fused import aten, inductor
from senet.nn.fused.interface import MapActivation, WholeBackend
from senet.nn.fused.triton.support import interprets, unsupported
from senet.utils.errors import unknown_name
from senet.utils.notices import announce

__all__ = [
    "SMALLEST",
    "SMALLEST_ACTIVATED",
    "ActivatedPasses",
    "Backend",
    "MapPasses",
    "Passes",
    "accepts",
    "backend_for",
    "enabled",
    "fused_by",
    "fused_choice",
    "is_worthwhile",
    "set_fused",
    "whole_for",
    "worthwhile",
]

# Elements of a map. On two cores fusing is the faster from about 130,000, but compiling takes seconds, which a run of
# small images does not make good.
SMALLEST = 3 * 2**18
# With an activation, unfused modules take longer, and fusing was asked for. By the CPU time of one thread, maps of 7x7
# and 14x14 with 672 and 1152 channels are faster fused from about 230,000 elements.
SMALLEST_ACTIVATED = 2**18

_Choice = Literal["auto", "triton", "inductor", "aten", "off"]
_WORDS = {"0": "off", "false": "off", "1": "auto", "true": "auto", "": "auto"}


class MapPasses(Protocol):
    """The passes over maps: modules whose functions compute what their namesakes in `reference` do."""

    def stats(self, y: Tensor, p: Tensor, /) -> tuple[Tensor, Tensor]:
        """See `reference.stats`."""
        ...

    def backward_elemt(self, g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor, /) -> Tensor:
        """See `reference.backward_elemt`."""
        ...

    def squeeze(self, y: Tensor, weight: Tensor, bias: Tensor, eps: float, /) -> tuple[Tensor, ...]:
        """See `reference.squeeze`."""
        ...

    def scale(
        self, y: Tensor, s: Tensor, p: Tensor, mean: Tensor, a: Tensor, bias: Tensor, skip: Tensor | None = None, /
    ) -> tuple[Tensor, ...]:
        """See `reference.scale`."""
        ...

    def reduce(
        self, g: Tensor, y: Tensor, s: Tensor, p: Tensor, mean: Tensor, a: Tensor, bias: Tensor,
        x: Tensor | None = None, /
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """See `reference.reduce`."""
        ...

    def gradient(
        self, g: Tensor, y: Tensor, p: Tensor, by: Tensor, dz: Tensor, da: Tensor, dmean: Tensor, m: Tensor,
        mean: Tensor, a: Tensor, r: Tensor, /
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """See `reference.gradient`."""
        ...


class ActivatedPasses(Protocol):
    """The passes of batch norm, activation and SE: functions that compute what `reference_activated` does."""

    def activated_mean(self, y: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation, /) -> Tensor:
        """See `reference_activated.activated_mean`."""
        ...

    def activated_elemt(
        self, g: Tensor, y: Tensor, p: Tensor, a: Tensor, b: Tensor, by: Tensor, plus: Tensor, k: Tensor, c: Tensor,
        activation: MapActivation, /
    ) -> Tensor:  # fmt: skip
        """See `reference_activated.activated_elemt`."""
        ...

    def activated_squeeze(
        self, y: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: MapActivation, /
    ) -> tuple[Tensor, ...]:
        """See `reference_activated.activated_squeeze`."""
        ...

    def activated_scale(
        self, y: Tensor, s: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation, /
    ) -> Tensor:
        """See `reference_activated.activated_scale`."""
        ...

    def activated_reduce(
        self, g: Tensor, y: Tensor, s: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation, /
    ) -> tuple[Tensor, ...]:
        """See `reference_activated.activated_reduce`."""
        ...

    def activated_gradient(
        self, g: Tensor, y: Tensor, p: Tensor, a: Tensor, b: Tensor, s: Tensor, dz: Tensor, da: Tensor, db: Tensor,
        f0: Tensor, f1: Tensor, mean: Tensor, r: Tensor, activation: MapActivation, /
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """See `reference_activated.activated_gradient`."""
        ...


class Passes(MapPasses, ActivatedPasses, Protocol):
    """All passes over maps."""


@dataclass(frozen=True)
class Backend:
    """How batch norm with SE is computed.

    Args:
        name: as `set_fused` has it.
        passes: over maps.
        whole: batch norm, SE, sum and ReLU as one operation; None where that takes the passes.
        dtypes: of the maps that it takes; the formulas take the others.
    """

    name: str
    passes: Passes
    whole: WholeBackend | None = None
    dtypes: frozenset[torch.dtype] = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})


# By name; that of Triton once it is used, because importing Triton takes long.
_backends = {"inductor": Backend("inductor", inductor), "aten": Backend("aten", aten)}
# By device: the name of what "auto" selects, and of what "triton" selects, once it was tried.
_selected: dict[tuple[str, torch.device], str] = {}


def set_fused(how: bool | str) -> None:
    """Choose how batch norm with SE is computed; the environment variable `SENET_FUSED` does the same.

    Args:
        how: True or "auto": on NVIDIA GPUs of compute capability 8.0 (Ampere) or newer by Triton's kernels, which
            compute batch norm, SE, sum and ReLU as one operation. Elsewhere in passes compiled by Inductor, or where it
            finds no compiler by PyTorch's own kernels, for maps of `SMALLEST` elements or more.
            "triton": by Triton's kernels for maps of any size; devices without them are computed as by "auto".
            "inductor" or "aten": by these passes alone.
            False or "off": as a batch norm and an SE block, one after the other.

    Raises:
        ValueError: another choice; or "triton" where no device can run its kernels.

    Examples:
        >>> senet.set_fused("aten")  # PyTorch's own kernels
        >>> senet.set_fused(False)  # batch norm, then SE
        >>> senet.set_fused(True)  # the fastest that this machine has
    """
    choice = _parse(how, "way to fuse")
    if choice == "triton" and not torch.cuda.is_available() and not interprets():
        raise ValueError(
            "Triton's kernels need an NVIDIA GPU, and PyTorch sees none here; use set_fused('auto'), or set "
            "TRITON_INTERPRET=1 in the environment before Python starts to run them, slowly, on a CPU"
        )
    _state["choice"] = choice
    if choice == "triton":
        importlib.import_module("senet.nn.fused.custom_ops")  # as networks that are compiled call the kernels


def _parse(how: bool | str, what: str) -> str:
    choice = _WORDS.get(str(how).lower(), str(how).lower())
    if choice not in get_args(_Choice):
        raise ValueError(unknown_name(what, how, get_args(_Choice)))
    return choice


# Read once, here: set inside a forward that Dynamo traces, it would change what Dynamo guards, and the network would be
# compiled a second time.
_state = {"choice": _parse(os.environ.get("SENET_FUSED", ""), "SENET_FUSED")}


def fused_choice() -> str:
    """Return what `set_fused` or `SENET_FUSED` chose last, for putting it back."""
    return _state["choice"]


def enabled() -> bool:
    """Return whether anything is fused."""
    return _state["choice"] != "off"


def worthwhile(y: Tensor, smallest: int | None = None) -> bool:
    """Return whether to fuse a map of `smallest` elements or more, by default `SMALLEST`, see `is_worthwhile`."""
    choice = _state["choice"]
    if choice == "auto" or choice == "triton":
        enough = y.numel() >= (SMALLEST if smallest is None else smallest)
        return enough or torch.compiler.is_compiling() or _takes_triton(y.device)
    return choice != "off"


def is_worthwhile(elements: int, device: torch.device) -> bool:
    """Return whether to fuse a map with this number of elements.

    With "auto", one that is large enough to be worth the calls and the compiling; by Triton's kernels, any.
    """
    if _state["choice"] in ("auto", "triton"):
        return elements >= SMALLEST or _takes_triton(device)
    return enabled()


def whole_for(device: torch.device) -> WholeBackend | None:
    """Return what computes the whole operation on a device; None where that takes passes, or nothing is fused."""
    return _triton().whole if _takes_triton(device) else None


def accepts(device: torch.device, channels: int, hidden: int) -> bool:
    """Return whether a device has the whole operation for these widths; for code that PyTorch compiles."""
    backend = whole_for(device)
    return backend is not None and backend.fits(channels, hidden, 1)


# What torch.compiler.assume_constant_result does, without importing Dynamo, and Triton with it, here.
accepts._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _takes_triton(device: torch.device) -> bool:
    # No other backend has it, and to try those would take seconds, which evaluation on a CPU has no use for.
    return (device.type == "cuda" or _state["choice"] == "triton") and fused_by(device) == "triton"


def fused_by(device: torch.device | str) -> str:
    """Return what runs on a device: "triton", "inductor", "aten", or "off"."""
    choice = _state["choice"]
    if choice in ("inductor", "aten", "off"):
        return choice
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    found = _selected.get((choice, device))
    if found is None:
        found = _selected[choice, device] = _select(choice, device)
    return found


def backend_for(device: torch.device) -> Backend:
    """Return the backend of a device; "off" has none, and is for the caller to look at first."""
    name = fused_by(device)
    return _triton() if name == "triton" else _backends[name]


def _triton() -> Backend:
    found = _backends.get("triton")
    if found is None:
        from senet.nn.fused.triton import passes as triton_passes
        from senet.nn.fused.triton import whole_operation

        half = frozenset({torch.float32, torch.bfloat16, torch.float16})
        found = _backends["triton"] = Backend("triton", triton_passes, whole_operation, half)
    return found


def _select(choice: str, device: torch.device) -> str:
    """Try the fastest backend of a device; where it does not run, give the reason in one line."""
    if device.type == "cuda" or choice == "triton":
        reason = unsupported(device, by_name=choice == "triton")
        if reason is None:
            return "triton"
        line = f"batch norm with SE does not take Triton's kernels on {device}: {reason}"
        if choice == "triton":
            warnings.warn(f"{line}; set_fused('auto') avoids this warning", stacklevel=3)
        else:
            announce(line, slower=True)
    return "inductor" if device.type in ("cpu", "cuda") and _compiles(device) else "aten"


def _compiles(device: torch.device) -> bool:
    y, p = torch.zeros(2, 3, 4, device=device), torch.zeros(3, device=device)
    try:
        inductor.stats(y, p)
    except Exception as error:  # no compiler, or one that does not work: every way to fail is a class of its own
        warnings.warn(
            f"PyTorch cannot compile for {device.type} here ({type(error).__name__}), so that batch norm with SE takes "
            f"PyTorch's own kernels, which are a little slower; a C++ compiler such as g++ is needed on a CPU, Triton "
            f"on a GPU",
            stacklevel=2,
        )
        return False
    return True
