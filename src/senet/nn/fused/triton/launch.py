"""Launch Triton's compiled kernels without Triton's Python launcher, which takes 20 to 50 us a kernel on the host.

`kernel[grid](*arguments)` binds the arguments, computes the kernel's specialization (dtypes and 16-byte alignment of
pointers, integers that are 1 or multiples of 16, None), looks up the compiled kernel by the text of these, and calls
it. Here the first call does the same. Later calls whose pointers have the same dtypes and alignment, on the same
device, call the compiled kernel directly.

Triton's own launch is used where the direct launch is not possible: in the interpreter, for versions of Triton not in
`VERSIONS`, while launch hooks are set (by profilers), and for kernels that need scratch memory.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from operator import itemgetter, or_
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton import knobs

__all__ = ["VERSIONS", "Launches", "Step", "launch"]

# (major, minor) with a known signature of `CompiledKernel.run` and its launchers: all take (grid x, y, z,
# stream, function, packed metadata, launch metadata, enter hook, exit hook, *arguments) with every argument, constants
# included; pointers may be integers. PyTorch 2.9 to 2.14 ship them.
VERSIONS = frozenset({(3, 5), (3, 6), (3, 7), (3, 8)})
_SUPPORTED = tuple(int(part) for part in triton.__version__.split(".")[:2]) in VERSIONS
_CUDA_LAUNCHER = ("triton.backends.nvidia.driver", "CudaLauncher")
# Most cached launches: by dtypes and alignments in each object, and by kinds of arguments in `launch`.
_MOST = 64
_MOST_KINDS = 1024

_current_device: Callable[[], int] = getattr(torch._C, "_cuda_getDevice", lambda: -1)
_current_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 0)


class Step(NamedTuple):
    """One launch.

    Args:
        kernel: a function decorated with `triton.jit`, whose constants are its last parameters.
        grid: programs along one or two axes.
        arguments: names of tensors and numbers given at each call, and fixed numbers, in the kernel's order.
        constants: values of its `tl.constexpr` parameters, in its order.
        num_warps: warps of a program.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[str | int | float, ...]
    constants: dict[str, Any]
    num_warps: int = 4


class _Launcher(NamedTuple):
    """How to call a compiled kernel.

    Args:
        call: takes the grid's x, y and z, the stream, `function`, `fixed` and the kernel's arguments.
        function: the kernel, loaded on a device.
        fixed: arguments that are equal at each call.
        packed: whether the kernel's arguments are one tuple.
    """

    call: Callable[..., None]
    function: Any
    fixed: tuple[Any, ...]
    packed: bool


# The grid's x and y, the fields of a launcher, and a function that selects its arguments from all values.
_Direct = tuple[int, int, Callable[..., None], Any, tuple[Any, ...], bool, Callable[[Any], tuple[Any, ...]]]


class Launches:
    """Kernels that are launched one after another with one set of tensors and numbers.

    Pointers, their alignment, the device and its stream are looked up once for all kernels. Threads and devices may
    share the object.

    Args:
        tensors: names of the tensors given at each call.
        steps: the launches, in order.
        numbers: names of the floats given at each call. Integers are fixed, as kernels are specialized on them.

    Raises:
        ValueError: a step names an argument that is not given; or its constants are not the last parameters.
    """

    def __init__(self, tensors: Sequence[str], steps: Sequence[Step], numbers: Sequence[str] = ()) -> None:
        names = (*tensors, *numbers)
        for step in steps:
            unknown = [x for x in step.arguments if isinstance(x, str) and x not in names]
            if unknown:
                raise ValueError(f"{step.kernel.__name__} takes {unknown[0]!r}, which is none of {', '.join(names)}")
            _check_order(step)
        self._names = names
        self._steps = tuple(steps)
        self._ready: dict[tuple[Any, ...], list[_Direct]] = {}
        # The values of a call are the values of the names, then the fixed ones; places are indices of arguments.
        fixed: dict[tuple[type, Any], int] = {}
        self._places = []
        for step in steps:
            places = [names.index(x) if isinstance(x, str) else _place(fixed, len(names), x) for x in step.arguments]
            self._places.append([*places, *[_place(fixed, len(names), x) for x in step.constants.values()]])
        self._fixed = tuple(value for _, value in fixed)

    def __call__(self, tensors: Sequence[Tensor | None], numbers: Sequence[float] = ()) -> None:
        """Launch the kernels on the current stream of the tensors' device.

        Args:
            tensors: in the order of their names, all on one device, the first not None; None is a null pointer.
            numbers: in the order of their names.
        """
        index = tensors[0].get_device()  # type: ignore[union-attr]
        pointers = [0 if x is None else x.data_ptr() for x in tensors]
        aligned = not reduce(or_, pointers) & 15 or tuple([p & 15 == 0 for p in pointers])
        key = (index, aligned, *[x if x is None else x.dtype for x in tensors])
        ready = self._ready.get(key)
        if ready is None or _is_observed():
            self._launch(key, tensors, numbers)
            return
        values = (*pointers, *numbers, *self._fixed)
        if _current_device() == index:
            _run(ready, _current_stream(index), values)
            return
        with torch.cuda.device(index):
            _run(ready, _current_stream(index), values)

    def _launch(self, key: tuple[Any, ...], tensors: Sequence[Tensor | None], numbers: Sequence[float]) -> None:
        """Launch by Triton, and prepare the direct launch where it is possible."""
        values = (*tensors, *map(float, numbers), *self._fixed)
        ready = []
        with _device_of(tensors[0]):
            for step, places in zip(self._steps, self._places, strict=True):
                arguments = [values[place] for place in places[: len(step.arguments)]]
                compiled = step.kernel[step.grid](*arguments, **step.constants, num_warps=step.num_warps)
                found = _launcher(compiled, step.kernel)
                if found is not None:
                    ready.append((*_both(step.grid), *found, _picker(places)))
        if len(ready) == len(self._steps):
            if len(self._ready) >= _MOST:
                self._ready.clear()
            self._ready[key] = ready


def _run(ready: list[_Direct], stream: int, values: tuple[Any, ...]) -> None:
    for x, y, call, function, fixed, packed, pick in ready:
        if packed:
            call(x, y, 1, stream, function, *fixed, pick(values))
        else:
            call(x, y, 1, stream, function, *fixed, *pick(values))


def _both(grid: tuple[int, ...]) -> tuple[int, int]:
    return grid[0], grid[1] if len(grid) > 1 else 1


def _place(fixed: dict[tuple[type, Any], int], before: int, value: Any) -> int:
    """Return the index of a fixed value, which is added once; 1, 1.0 and True are different values."""
    return fixed.setdefault((type(value), value), before + len(fixed))


def _picker(places: list[int]) -> Callable[[Any], tuple[Any, ...]]:
    if len(places) == 1:
        return lambda values: (values[places[0]],)
    return itemgetter(*places)


def _launcher(compiled: Any, kernel: Any) -> _Launcher | None:
    """Return the launcher of a compiled kernel, if it may be launched directly.

    Args:
        compiled: the result of Triton's own launch.
        kernel: the launched kernel.
    """
    if not _SUPPORTED or not isinstance(kernel, triton.JITFunction) or kernel.pre_run_hooks:
        return None
    if hasattr(compiled, "result"):  # compiled by another thread
        compiled = compiled.result()
    if _scratch(getattr(compiled, "metadata", None)):  # allocated at each launch
        return None
    run, function, metadata = compiled.run, compiled.function, compiled.packed_metadata
    kind = type(run)
    if (kind.__module__, kind.__qualname__) != _CUDA_LAUNCHER or getattr(run, "gsan_enabled", False):
        return _Launcher(run, function, (metadata, None, None, None), False)
    # Equivalent to its `__call__` without scratch memory, in half of the time.
    modes = (run.launch_cooperative_grid, run.launch_pdl)
    if hasattr(run, "arg_annotations"):  # 3.7 and 3.8
        fixed = (*modes, metadata, None, None, None, None, None, run.arg_annotations, run.kernel_signature)
        return _Launcher(run.launch, function, fixed, True)
    return _Launcher(run.launch, function, (*modes, None, None, metadata, None, None, None), False)


def _scratch(metadata: Any) -> int:
    """Return the bytes of scratch memory that a kernel needs; 1 if unknown."""
    return max(getattr(metadata, "global_scratch_size", 1), getattr(metadata, "profile_scratch_size", 1))


def _is_observed() -> bool:
    """Return whether launches have hooks, as set by profilers."""
    runtime = knobs.runtime
    enter, leave = runtime.launch_enter_hook, runtime.launch_exit_hook
    # Chains of hooks, or the hook that replaced a chain.
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def _device_of(x: Tensor | None) -> AbstractContextManager[Any]:
    """Make a tensor's device current: kernels are loaded and launched there."""
    return torch.cuda.device(x.device) if x is not None and x.is_cuda else nullcontext()


def _check_order(step: Step) -> None:
    """Raise a ValueError unless constants are the last parameters of a kernel, in order."""
    kernel, constants = step.kernel, list(step.constants)
    names = list(kernel.arg_names)
    if names[len(step.arguments) :] != constants:
        raise ValueError(
            f"{kernel.__name__} takes {', '.join(names)}, given {len(step.arguments)} arguments and then the constants "
            f"{', '.join(constants) or 'none'}"
        )


_kinds: dict[tuple[Any, ...], _Launcher] = {}
_lock = threading.Lock()


def launch(
    kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], constants: dict[str, Any], num_warps: int = 4
) -> None:
    """Launch one kernel. `Launches` takes less time where several share their arguments.

    Args:
        kernel: a function decorated with `triton.jit`, whose constants are its last parameters.
        grid: programs along one or two axes.
        args: its arguments, at least one of them a tensor; None is a null pointer.
        constants: values of its `tl.constexpr` parameters, in its order.
        num_warps: warps of a program.
    """
    first = next(x for x in args if isinstance(x, Tensor))
    index = first.get_device()
    key = (kernel.fn, index, num_warps, *constants.values(), *map(_kind, args))
    found = _kinds.get(key)
    if found is None or _is_observed():
        _check_order(Step(kernel, grid, args, constants))
        with _device_of(first):
            compiled = kernel[grid](*args, **constants, num_warps=num_warps)
        found = _launcher(compiled, kernel)
        if found is not None:
            with _lock:
                if len(_kinds) >= _MOST_KINDS:
                    _kinds.clear()
                _kinds[key] = found
        return
    ready: list[_Direct] = [(*_both(grid), *found, tuple)]
    with _device_of(None if _current_device() == index else first):
        _run(ready, _current_stream(index), (*args, *constants.values()))


def _kind(x: Any) -> Any:
    """Return the properties of an argument that a kernel is specialized on."""
    if isinstance(x, Tensor):
        return x.dtype, x.data_ptr() & 15 == 0
    if type(x) is int:
        return x == 1, x & 15 == 0, -(2**31) <= x < 2**31, x < 2**63
    return x if x is None else type(x)
