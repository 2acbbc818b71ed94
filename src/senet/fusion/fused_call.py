"""The forward of fused modules, and the calls of blocks in which they act.

All state is that of one call of a block, in its thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from senet.fusion.call import Call, in_backward
from senet.fusion.deferred import Deferred
from senet.fusion.fusion import FUSIONS, Fusion, submodule

__all__ = ["run_activation", "run_block", "run_norm", "run_se"]

_Forward = Callable[..., Any]


class _Calls(threading.local):
    """The calls that are running in a thread, by the identity of a module, innermost last."""

    def __init__(self) -> None:
        self._running: dict[int, list[Call]] = {}
        self._recomputed: dict[int, list[Call]] = {}

    def begin(self, calls: list[Call]) -> None:
        for call in calls:
            for module in call.modules:
                self._running.setdefault(id(module), []).append(call)

    def end(self, calls: list[Call]) -> None:
        for call in calls:
            for module in call.modules:
                self._running[id(module)].remove(call)
                if not self._running[id(module)]:
                    del self._running[id(module)]

    def of(self, module: nn.Module) -> list[Call]:
        """Return the calls that a module takes part in."""
        found = self._running.get(id(module), [])
        return found or (self._recomputed.get(id(module), []) if in_backward() else [])

    def of_norm(self, norm: nn.Module) -> list[Call]:
        """Return the call that a batch norm begins."""
        return self._running.get(id(norm), [])[-1:] or self.recompute(norm)

    def recompute(self, norm: nn.Module) -> list[Call]:
        """Begin the call of a batch norm that backward runs again, as checkpointing inside a block does.

        It ends when SE takes the map. One that an error ended is replaced.
        """
        block = _blocks[norm]() if norm in _blocks and in_backward() else None
        for fusion in () if block is None else block.__dict__.get(FUSIONS, ()):
            call = Call.of(block, fusion) if submodule(block, fusion.norm) is norm else None  # type: ignore[arg-type]
            if call is not None:
                self._recomputed.update({id(module): [call] for module in call.modules})
                return [call]
        return []

    def forget(self, call: Call) -> None:
        """End a call that `recompute` began, if it is one."""
        for module in call.modules:
            if self._recomputed.get(id(module)) == [call]:
                del self._recomputed[id(module)]


_calls = _Calls()
# The block of each batch norm that computed a recalibrated map.
_blocks: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()


class _Running:
    """The time in which the forward of a block runs."""

    def __init__(self, calls: list[Call]) -> None:
        self._of_block = calls

    def __enter__(self) -> None:
        _calls.begin(self._of_block)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        _calls.end(self._of_block)
        for call in self._of_block:
            if kind is None and call.waits:
                call.refuse()


def run_block(block: nn.Module, original: _Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the forward of a block, in which its fusions act."""
    fusions: tuple[Fusion, ...] = block.__dict__.get(FUSIONS, ()) if block.training else ()
    calls = [call for fusion in fusions if (call := Call.of(block, fusion)) is not None]
    if not calls:
        return original(block, *args, **kwargs)
    for call in calls:
        _blocks[call.norm] = weakref.ref(block)
    with _Running(calls):
        out = original(block, *args, **kwargs)
    if type(out) is Tensor or not any(fusion.sum_relu for fusion in fusions):
        return out
    return tree_map(lambda leaf: leaf.value() if isinstance(leaf, Deferred) else leaf, out)


def run_norm(norm: nn.Module, original: _Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a batch norm: with activation and SE, if that is possible in this call."""
    for call in _calls.of_norm(norm) if len(args) == 1 and not kwargs else ():
        out = call.normalize(args[0])
        if not call.waits:
            _calls.forget(call)
        if out is not None:
            return out
    return original(norm, *args, **kwargs)


def run_activation(module: nn.Module, original: _Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an activation, which passes a recalibrated map through, or computes one with a sum and itself, a ReLU."""
    if len(args) == 1 and isinstance(args[0], Deferred) and not any(c.has_made(args[0]) for c in _calls.of(module)):
        return args[0].relu(getattr(module, "inplace", False))
    for call in _calls.of(module) if len(args) == 1 else ():
        if call.has_made(args[0]):
            call.pass_through(args[0])
            if call.se_is_in(module):
                call.take(args[0])
                _calls.forget(call)
            return args[0]
    return original(module, *args, **kwargs)


def run_se(se: nn.Module, original: _Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run SE, which passes the map through that its batch norm recalibrated."""
    for call in _calls.of(se)[-1:]:
        if call.waits:
            call.take(args[0] if args else None)
            _calls.forget(call)
            return args[0]
    return original(se, *args, **kwargs)
