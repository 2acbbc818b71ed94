"""Restore what code of a network changes while a tool runs it.

A detector keeps its anchors, for example; those of a run without values would be an error in the user's next run. A run
with values changes buffers, such as a memory bank, and may change parameters and draw random numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from senet.utils.structures import closure_values, found_in, held_attributes

__all__ = ["same_state", "same_values"]

# The deepest structure that is searched, and the levels for which objects and functions count.
_DEPTH, _OBJECT, _FUNCTION = 12, 2, 4
# Larger containers hold data.
_LARGEST = 10_000
_PLAIN = (str, bytes, int, float, complex, Tensor, nn.Module, ModuleType)


@contextmanager
def same_state(model: nn.Module) -> Iterator[None]:
    """Restore the attributes, parameters and buffers of all modules after a block, and caches that their code reaches.

    PyTorch's random state is restored, too: of the CPU, and of the network's GPUs. Caches are lists, dicts and objects
    in attributes; those in globals, closures and classes of the modules' functions; and results of `functools.cache`.
    Of what is outside of modules, tensors alone are restored.
    """
    modules = [(m, dict(vars(m)), dict(m._parameters), dict(m._buffers)) for m in model.modules()]
    found = _Stores()
    for module in model.modules():
        for value in held_attributes(module).values():
            found.add(value)
            if isinstance(value, dict | list):
                found.whole.append((value, value.copy()))
        for cls in type(module).__mro__:
            found.add(cls)
    before = [(store, store.copy()) for store in found.stores]
    misses = [(cached, cached.cache_info().misses) for cached in found.cached]
    try:
        with torch.random.fork_rng(devices=_gpus(model)):
            yield
    finally:
        for module, attributes, parameters, buffers in modules:
            _fill(vars(module), attributes)
            _fill(module._parameters, parameters)
            _fill(module._buffers, buffers)
        for value, content in found.whole:
            if list(map(id, _items(value))) != list(map(id, _items(content))):
                _fill(value, content)
        for store, content in before:
            _restore(store, content)
        for cached, count in misses:
            if cached.cache_info().misses != count:
                cached.cache_clear()


@contextmanager
def same_values(model: nn.Module) -> Iterator[None]:
    """Restore the values of parameters and buffers, and of tensors in attributes of modules, after a block."""
    tensors: dict[int, Tensor] = {}
    for module in model.modules():
        held = found_in([module._parameters, module._buffers, held_attributes(module)], Tensor)
        tensors |= {id(x): x for x in held if x.layout == torch.strided and not x.is_meta}
    before = [(x, x.detach().clone()) for x in tensors.values()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, content in before:
                if not torch.equal(tensor, content):
                    tensor.copy_(content)


def _gpus(model: nn.Module) -> list[int]:
    """Return the numbers of the GPUs that hold a network."""
    tensors = (*model.parameters(), *model.buffers())
    return sorted({x.device.index for x in tensors if x.device.type == "cuda" and x.device.index is not None})


class _Stores:
    """Containers in which a run may leave tensors.

    Attributes:
        stores: lists, dicts and attributes of objects.
        whole: lists and dicts in attributes of modules, with their contents.
        cached: functions with `functools.cache` or `lru_cache`.
    """

    def __init__(self) -> None:
        self.stores: list[Any] = []
        self.whole: list[tuple[Any, Any]] = []
        self.cached: list[Any] = []
        self._seen: dict[int, object] = {}

    def add(self, value: Any, depth: int = _DEPTH) -> None:
        """Add the containers that a value holds."""
        if value is None or depth < 0 or isinstance(value, _PLAIN) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if hasattr(value, "cache_info") and hasattr(value, "cache_clear"):
            self.cached.append(value)
            self.add(getattr(value, "__wrapped__", None), depth)
        elif isinstance(value, dict | list | tuple | set | frozenset):
            if len(value) <= _LARGEST:
                if isinstance(value, dict | list):
                    self.stores.append(value)
                self._add_all(value.values() if isinstance(value, dict) else value, depth - 1)
        elif isinstance(value, type):
            if not value.__module__.startswith(("torch.", "builtins")):
                self._add_all(vars(value).values(), depth - 1)
        elif isinstance(value, FunctionType):
            if not (value.__module__ or "").startswith("torch."):
                named = [value.__globals__.get(name) for name in _names(value.__code__)]
                self._add_all([*closure_values(value), *named], depth - _FUNCTION)
        elif isinstance(value, MethodType):
            self._add_all([value.__func__, value.__self__], depth)
        elif isinstance(value, partial):
            self._add_all([value.func, *value.args, *value.keywords.values()], depth - 1)
        elif isinstance(getattr(value, "__dict__", None), dict):
            self.stores.append(vars(value))
            self._add_all(vars(value).values(), depth - _OBJECT)

    def _add_all(self, values: Any, depth: int) -> None:
        for value in list(values):
            self.add(value, depth)


@cache
def _names(code: CodeType) -> frozenset[str]:
    """Return the names that a function reads, also in functions inside it."""
    inner = [_names(one) for one in code.co_consts if isinstance(one, CodeType)]
    return frozenset(code.co_names).union(*inner)


def _restore(store: Any, before: Any) -> None:
    """Restore the entries of a container that now hold other tensors."""
    if isinstance(store, list):
        if list(map(id, store)) != list(map(id, before)) and _holds_tensors(store):
            _fill(store, before)
        return
    for key, value in list(store.items()):
        if before.get(key) is not value and _holds_tensors(value):
            if key in before:
                store[key] = before[key]
            else:
                del store[key]


def _holds_tensors(value: object) -> bool:
    return next(found_in(value, Tensor, attributes=True), None) is not None


def _fill(store: Any, content: Any) -> None:
    store.clear()
    store.update(content) if isinstance(store, dict) else store.extend(content)


def _items(value: dict[Any, Any] | list[Any]) -> list[Any]:
    """Return the items of a list, or the keys and values of a dict in turn."""
    return [part for item in value.items() for part in item] if isinstance(value, dict) else list(value)
