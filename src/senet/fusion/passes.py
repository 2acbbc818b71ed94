"""How a pass is run: compiled by Inductor where it can, by PyTorch's own kernels otherwise."""

import atexit
import itertools
import os
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from senet.errors import unknown_name
from senet.fusion import aten, formulas

__all__ = ["SMALLEST", "enabled", "fused_by", "is_channels_last", "run", "set_fused", "worthwhile"]

# Elements of a map. With fewer, batch norm and SE one after the other are as fast (measured on two cores, float32).
SMALLEST = 3 * 2**18

_CHOICES = ("auto", "inductor", "aten", "off")
_WORDS = {"0": "off", "false": "off", "1": "auto", "true": "auto", "": "auto"}
_state = {"choice": ""}
# By device: "inductor" or "aten", once it was tried.
_backends: dict[str, str] = {}
# By pass and kind of its arguments.
_compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}
_numbers = itertools.count()
# Dynamo's own tables are gone by the time that modules are taken apart.
atexit.register(_compiled.clear)


def set_fused(how: bool | str) -> None:
    """Choose how batch norm with SE is computed in training; the environment variable `SENET_FUSED` does the same.

    Args:
        how: True or "auto": in passes compiled by Inductor, or where it finds no compiler by PyTorch's own kernels, for
            maps of `SMALLEST` elements or more;
            "inductor" or "aten": by these alone; False or "off": as a batch norm and an SE block, one after the other.

    Raises:
        ValueError: another choice.
    """
    choice = _WORDS.get(str(how).lower(), str(how).lower())
    if choice not in _CHOICES:
        raise ValueError(unknown_name("way to fuse", how, _CHOICES))
    _state["choice"] = choice


def _choice() -> str:
    if not _state["choice"]:
        set_fused(os.environ.get("SENET_FUSED", ""))
    return _state["choice"]


def enabled() -> bool:
    """Whether anything is fused."""
    return _choice() != "off"


def worthwhile(y: Tensor) -> bool:
    """Whether a map is to be fused: with "auto", one that is large enough to be worth the calls and the compiling."""
    return enabled() and (_choice() != "auto" or torch.compiler.is_compiling() or y.numel() >= SMALLEST)


def fused_by(device: torch.device | str) -> str:
    """What runs the passes on a device: "inductor", "aten", or "off"."""
    choice, kind = _choice(), torch.device(device).type
    if choice != "auto":
        return choice
    if kind not in _backends:
        _backends[kind] = "inductor" if kind in ("cpu", "cuda") and _compiles(kind) else "aten"
    return _backends[kind]


def _compiles(kind: str) -> bool:
    y, p = torch.zeros(2, 3, 4, device=kind), torch.zeros(1, 3, device=kind)
    try:
        _inductor("statistics", (y, p))
    except Exception as error:  # no compiler, or one that does not work: every way to fail is a class of its own
        warnings.warn(
            f"PyTorch cannot compile for {kind} here ({type(error).__name__}), so that batch norm with SE takes "
            f"PyTorch's own kernels, which are a little slower; a C++ compiler such as g++ is needed on a CPU, Triton "
            f"on a GPU",
            stacklevel=2,
        )
        return False
    return True


def run(name: str, *arguments: Tensor) -> Any:
    """Run a pass of `formulas`; where gradients of gradients are wanted, as the formulas are written.

    Args:
        name: of the pass.
        arguments: its arguments, the maps all of one memory format.
    """
    if torch.is_grad_enabled():
        return getattr(formulas, name)(*arguments)
    if fused_by(arguments[0].device) == "aten":
        return getattr(aten, name)(*arguments)
    return _inductor(name, arguments)


def _inductor(name: str, arguments: tuple[Tensor, ...]) -> Any:
    # Dynamo looks at more than this before each call, and compiles anew where it finds something changed; after some
    # such changes it gives up in silence. With a function of its own for each of these kinds, sizes alone change.
    detached = [argument.detach() for argument in arguments]
    key = (name, torch.is_autocast_enabled(detached[0].device.type), torch.get_num_threads(), *map(_kind, detached))
    compiled = _compiled.get(key)
    with torch.no_grad():
        if compiled is not None:
            return compiled(*detached)
        compiled = _compile(name)
        # Sizes that are equal by chance are not to be taken for one.
        with torch.fx.experimental._config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            found = compiled(*detached)
    _compiled[key] = compiled
    return found


def _kind(x: Tensor) -> tuple[Any, ...]:
    """What a compiled pass is made for: all but the sizes, of which 1 is another matter."""
    return (x.device, x.dtype, *[size == 1 for size in x.shape], x.is_contiguous(), is_channels_last(x))


def is_channels_last(x: Tensor) -> bool:
    """Whether a map of two or three spatial axes lies in memory with its channels last, without gaps."""
    return x.ndim in (4, 5) and x.is_contiguous(
        memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    )


def _compile(name: str) -> Callable[..., Any]:
    formula = getattr(formulas, name)
    code = formula.__code__.replace(co_name=f"{name}_{next(_numbers)}")
    copy = types.FunctionType(code, formula.__globals__, code.co_name, formula.__defaults__, formula.__closure__)
    compiled: Callable[..., Any] = torch.compile(copy, dynamic=True, fullgraph=True)
    return compiled
