"""How a pass is run: compiled by Inductor where it can, by PyTorch's own kernels otherwise."""

import atexit
import itertools
import os
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from senet.errors import unknown_name
from senet.fusion import aten, formulas
from senet.notices import announce

__all__ = [
    "CHANNELS_LAST",
    "SMALLEST",
    "enabled",
    "fused_by",
    "fused_choice",
    "is_channels_last",
    "is_followed",
    "run",
    "set_fused",
    "worthwhile",
]

# Elements of a map. On two cores fusing is the faster from about 130,000, but compiling takes seconds, which a run of
# small images does not make good.
SMALLEST = 3 * 2**18

# By the number of a map's axes.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

_CHOICES = ("auto", "inductor", "aten", "off")
_WORDS = {"0": "off", "false": "off", "1": "auto", "true": "auto", "": "auto"}
# By device: "inductor" or "aten", once it was tried.
_backends: dict[str, str] = {}
# By pass and kind of its arguments; and by these and their shapes.
_compiled: dict[tuple[Any, ...], "_Compiled"] = {}
_direct: dict[tuple[Any, ...], "_Direct"] = {}
# A compiled function, and its arguments: the place among the tensors, or a size.
_Direct = tuple[Callable[..., Any], list[tuple[int | None, Any]]]
# Of shapes that are kept; each takes 2 kB.
_MOST = 8192
_numbers = itertools.count()
# Dynamo's own tables are gone by the time that modules are taken apart.
atexit.register(_compiled.clear)
atexit.register(_direct.clear)


def set_fused(how: bool | str) -> None:
    """Choose how batch norm with SE is computed in training; the environment variable `SENET_FUSED` does the same.

    Args:
        how: True or "auto": in passes compiled by Inductor, or where it finds no compiler by PyTorch's own kernels, for
            maps of `SMALLEST` elements or more;
            "inductor" or "aten": by these alone; False or "off": as a batch norm and an SE block, one after the other.

    Raises:
        ValueError: another choice.
    """
    _state["choice"] = _parse(how, "way to fuse")


def _parse(how: bool | str, what: str) -> str:
    choice = _WORDS.get(str(how).lower(), str(how).lower())
    if choice not in _CHOICES:
        raise ValueError(unknown_name(what, how, _CHOICES))
    return choice


# Read once, here: set inside a forward that Dynamo traces, it would change what Dynamo guards, and the network would be
# compiled a second time.
_state = {"choice": _parse(os.environ.get("SENET_FUSED", ""), "SENET_FUSED")}


def fused_choice() -> str:
    """What `set_fused` or `SENET_FUSED` chose last, for putting it back."""
    return _state["choice"]


def enabled() -> bool:
    """Whether anything is fused."""
    return _state["choice"] != "off"


def worthwhile(y: Tensor) -> bool:
    """Whether a map is to be fused: with "auto", one that is large enough to be worth the calls and the compiling."""
    return enabled() and (_state["choice"] != "auto" or torch.compiler.is_compiling() or y.numel() >= SMALLEST)


def fused_by(device: torch.device | str) -> str:
    """What runs the passes on a device: "inductor", "aten", or "off"."""
    choice, kind = _state["choice"], torch.device(device).type
    if choice != "auto":
        return choice
    if kind not in _backends:
        _backends[kind] = "inductor" if kind in ("cpu", "cuda") and _compiles(kind) else "aten"
    return _backends[kind]


def _compiles(kind: str) -> bool:
    y, p = torch.zeros(2, 3, 4, device=kind), torch.zeros(3, device=kind)
    try:
        _inductor("moments", (y, p))
    except Exception as error:  # no compiler, or one that does not work: every way to fail is a class of its own
        warnings.warn(
            f"PyTorch cannot compile for {kind} here ({type(error).__name__}), so that batch norm with SE takes "
            f"PyTorch's own kernels, which are a little slower; a C++ compiler such as g++ is needed on a CPU, Triton "
            f"on a GPU",
            stacklevel=2,
        )
        return False
    return True


def run(name: str, *arguments: Any) -> Any:
    """Run a pass of `formulas`; where gradients of gradients are wanted, as the formulas are written.

    Args:
        name: of the pass.
        arguments: its tensors, the maps all of one shape, dtype and memory format, the others without gaps; then its
            numbers.
    """
    y = arguments[0]
    if is_followed(*arguments) or not y.numel() or type(y) not in (Tensor, nn.Parameter):
        return getattr(formulas, name)(*arguments)
    if fused_by(y.device) == "aten":
        return getattr(aten, name)(*arguments)
    return _inductor(name, arguments)


def is_followed(*arguments: Any) -> bool:
    """Whether somebody follows each operation, as transforms of tensors do, or nothing is to be fused."""
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or not enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
        # Of gradients in batches, which are no transform that is active.
        or any(isinstance(x, Tensor) and torch._C._functorch.is_legacy_batchedtensor(x) for x in arguments)
    )


def _inductor(name: str, arguments: tuple[Any, ...]) -> Any:
    y = arguments[0]
    tensors = [x.detach() for x in arguments if isinstance(x, Tensor)]  # parameters would be a kind of their own
    numbers = arguments[len(tensors) :]
    common = (name, y.device, torch.is_autocast_enabled(y.device.type), torch.get_num_threads(), *numbers)
    key = (common, *[(x.dtype, x.shape, x.stride()) for x in tensors])
    direct = _direct.get(key)
    with torch.no_grad():
        if direct is not None:
            function, places = direct
            found = function(*[size if place is None else tensors[place] for place, size in places])
            return found[0] if len(found) == 1 else tuple(found)
        kind = (common, *[_kind(x) for x in tensors])
        if kind not in _compiled:
            if not _compiled:
                announce(f"compiling batch norm with SE for {y.device.type}: the first step takes some seconds longer")
            _compiled[kind] = _Compiled(name, numbers)
        found, direct = _compiled[kind](tensors)
    if direct is not None:
        if len(_direct) >= _MOST:
            _direct.clear()
        _direct[key] = direct
    return found


def _kind(x: Tensor) -> tuple[Any, ...]:
    """What a compiled pass is made for: all but the sizes, of which 1 is another matter."""
    return (x.dtype, x.is_contiguous(), is_channels_last(x), *[size == 1 for size in x.shape])


class _Compiled:
    """A formula compiled for arguments that differ in nothing but their sizes.

    Dynamo looks at more than that before each call, and compiles anew where it finds something changed; after some such
    changes it gives up in silence. So each kind has a function of its own; and as its look takes longer than many a
    pass, what it called for a shape is called without it the next time.
    """

    def __init__(self, name: str, numbers: tuple[float, ...]) -> None:
        formula = getattr(formulas, name)

        def whole(*tensors: Tensor) -> Any:
            return formula(*tensors, *numbers)

        code = whole.__code__.replace(co_name=f"{name}_{next(_numbers)}")  # Dynamo counts by code, not by function
        copy = types.FunctionType(code, whole.__globals__, code.co_name, None, whole.__closure__)
        self._function = torch.compile(copy, dynamic=True, fullgraph=True, backend=self._compile)
        self._called: tuple[Any, ...] = ()
        self._lock = threading.Lock()

    def _compile(self, graph: Any, examples: list[Any]) -> Callable[..., Any]:
        # What is compiled for a small map, and kept on disk, then runs in parallel for a large one, on any threads.
        inductor: Any = torch._dynamo.lookup_backend("inductor")
        function = inductor(graph, examples, config_patches={"cpp.dynamic_threads": True})

        def recorded(*arguments: Any) -> Any:
            results = function(*arguments)
            self._called = (function, arguments, results)
            return results

        return recorded

    def __call__(self, tensors: list[Tensor]) -> tuple[Any, "_Direct | None"]:
        """The result, and how to have it again for these shapes, if that is possible."""
        # Sizes that are equal by chance are not to be taken for one, nor numbers for what may change.
        equal = torch.fx.experimental._config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
        with self._lock, equal, torch._dynamo.config.patch(specialize_float=True):
            found = self._function(*tensors)
            called, self._called = self._called, ()
        if not called:  # Dynamo was told to run it as it is written
            return found, None
        function, arguments, results = called
        # It would be otherwise if a formula returned one of its arguments, or somebody's kind of tensors went in.
        if any(x is not y for x, y in zip(found if isinstance(found, tuple) else (found,), results, strict=True)):
            return found, None
        places = {id(x): place for place, x in enumerate(tensors)}
        return found, (function, [(places.get(id(x)), x if isinstance(x, int) else None) for x in arguments])


def is_channels_last(x: Tensor) -> bool:
    """Whether a map of two or three spatial axes lies in memory with its channels last, without gaps."""
    return x.ndim in CHANNELS_LAST and x.is_contiguous(memory_format=CHANNELS_LAST[x.ndim])
