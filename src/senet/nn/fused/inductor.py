"""The passes of `reference` compiled by Inductor."""

import atexit
import itertools
import threading
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from senet.nn.fused import reference, reference_activated
from senet.nn.fused.memory_format import is_channels_last
from senet.utils.notices import announce

__all__ = [
    "activated_elemt",
    "activated_gradient",
    "activated_mean",
    "activated_reduce",
    "activated_scale",
    "activated_squeeze",
    "backward_elemt",
    "backward_reduce",
    "elemt",
    "gradient",
    "reduce",
    "scale",
    "squeeze",
    "stats",
]

# By pass and kind of its arguments; and by these and their shapes.
_compiled: dict[tuple[Any, ...], "_Compiled"] = {}
_direct: dict[tuple[Any, ...], "_Direct"] = {}
# A compiled function, and its arguments: the place among the tensors, or a size.
_Direct = tuple[Callable[..., Any], list[tuple[int | None, Any]]]
# Of shapes that are kept; each takes 2 kB.
_MOST = 8192
# What is compiled for a small map, and kept on disk, runs in parallel for a large one, on any threads. No intermediate
# map is written: by default Inductor writes those that many operations read, such as a sigmoid.
_OPTIONS = {"cpp.dynamic_threads": True, "realize_reads_threshold": 1000, "realize_opcount_threshold": 1000}
_numbers = itertools.count()
# Dynamo's tables are freed before modules at exit.
atexit.register(_compiled.clear)
atexit.register(_direct.clear)


def _pass(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled form of a formula, for tensors and then numbers."""

    def run(*arguments: Any) -> Any:
        return _run(formula, arguments)

    return run


stats = _pass(reference.stats)
elemt = _pass(reference.elemt)
backward_reduce = _pass(reference.backward_reduce)
backward_elemt = _pass(reference.backward_elemt)
squeeze = _pass(reference.squeeze)
scale = _pass(reference.scale)
reduce = _pass(reference.reduce)
gradient = _pass(reference.gradient)
activated_mean = _pass(reference_activated.activated_mean)
activated_elemt = _pass(reference_activated.activated_elemt)
activated_squeeze = _pass(reference_activated.activated_squeeze)
activated_scale = _pass(reference_activated.activated_scale)
activated_reduce = _pass(reference_activated.activated_reduce)
activated_gradient = _pass(reference_activated.activated_gradient)


def _run(formula: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    y = arguments[0]
    tensors = [x.detach() for x in arguments if isinstance(x, Tensor)]  # parameters would be a kind of their own
    numbers = arguments[len(tensors) :]
    common = (formula, y.device, torch.is_autocast_enabled(y.device.type), torch.get_num_threads(), *numbers)
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
            _compiled[kind] = _Compiled(formula, numbers)
        found, direct = _compiled[kind](tensors)
    if direct is not None:
        if len(_direct) >= _MOST:
            _direct.clear()
        _direct[key] = direct
    return found


def _kind(x: Tensor) -> tuple[Any, ...]:
    """Return what a compiled pass is made for: all but the sizes, of which 1 is another matter."""
    return (x.dtype, x.is_contiguous(), is_channels_last(x), *[size == 1 for size in x.shape])


class _Compiled:
    """A formula compiled for arguments that differ in nothing but their sizes.

    Dynamo checks more guards before each call, and recompiles after a change; after several changes it silently falls
    back. So each kind has its own function; and since the guards take longer than many passes, the compiled code for a
    shape is called directly the next time.
    """

    def __init__(self, formula: Callable[..., Any], numbers: tuple[float | str, ...]) -> None:
        def whole(*tensors: Tensor) -> Any:
            return formula(*tensors, *numbers)

        code = whole.__code__.replace(
            co_name=f"{formula.__name__}_{next(_numbers)}"
        )  # Dynamo counts by code, not by function
        copy = types.FunctionType(code, whole.__globals__, code.co_name, None, whole.__closure__)
        self._function = torch.compile(copy, dynamic=True, fullgraph=True, backend=self._compile)
        self._called: tuple[Any, ...] = ()
        self._lock = threading.Lock()

    def _compile(self, graph: Any, examples: list[Any]) -> Callable[..., Any]:
        inductor: Any = torch._dynamo.lookup_backend("inductor")
        function = inductor(graph, examples, config_patches=_OPTIONS)

        def recorded(*arguments: Any) -> Any:
            results = function(*arguments)
            self._called = (function, arguments, results)
            return results

        return recorded

    def __call__(self, tensors: list[Tensor]) -> tuple[Any, "_Direct | None"]:
        """Return the result, and a direct call for these shapes, if possible."""
        # Equal sizes must not be unified, and numbers must be constants.
        equal = torch.fx.experimental._config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
        with self._lock, equal, torch._dynamo.config.patch(specialize_float=True):
            found = self._function(*tensors)
            called, self._called = self._called, ()
        if not called:  # Dynamo is disabled, and ran the formula itself
            return found, None
        function, arguments, results = called
        # They differ if a formula returns one of its arguments, or for tensor subclasses.
        if any(x is not y for x, y in zip(found if isinstance(found, tuple) else (found,), results, strict=True)):
            return found, None
        places = {id(x): place for place, x in enumerate(tensors)}
        return found, (function, [(places.get(id(x)), x if isinstance(x, int) else None) for x in arguments])
