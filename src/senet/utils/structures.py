"""Find what modules hold in structures: lists and mappings, objects, closures, `functools.partial`."""

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from inspect import isroutine
from types import CellType, FunctionType, ModuleType
from typing import Any, TypeVar

from torch import nn

__all__ = ["closure_values", "found_in", "held_attributes"]

Kind = TypeVar("Kind")

# Attributes that every module has.
_OWN = frozenset(vars(nn.Module()))
# The deepest structure in which something is found, and the levels for which an object with attributes counts.
_DEPTH, _OBJECT = 12, 2
# They hold nothing that is searched for.
_PLAIN = (str, bytes, int, float, complex, nn.Module, type, ModuleType)


def held_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that not every module has: no parameters, buffers and children."""
    return {name: value for name, value in vars(module).items() if name not in _OWN}


def found_in(value: object, kind: type[Kind], *, attributes: bool = False) -> Iterator[Kind]:
    """Yield the objects of a class in a structure, each once, in order.

    Args:
        value: a list, tuple, set, mapping, function or `functools.partial` of such, or an object of the class itself.
        kind: the class.
        attributes: look into attributes of other objects, except for those of modules and classes.
    """
    return _found(value, kind, attributes, _DEPTH, {})


def _found(value: object, kind: type[Kind], attributes: bool, depth: int, seen: dict[int, object]) -> Iterator[Kind]:
    if depth < 0 or id(value) in seen:
        return
    seen[id(value)] = value  # which keeps it alive, and its identity taken
    if isinstance(value, kind):
        yield value
    elif value is not None and not isinstance(value, _PLAIN):
        for part in _items(value):
            yield from _found(part, kind, attributes, depth - 1, seen)
        if attributes and not isroutine(value):
            for part in _attributes(value):
                yield from _found(part, kind, attributes, depth - _OBJECT, seen)


def _items(value: object) -> list[object]:
    """Return what a container, a closure or a `functools.partial` holds."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return list(value)
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, FunctionType):
        return closure_values(value)
    return []


def _attributes(value: object) -> list[object]:
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    found = [getattr(value, name, None) for name in slots if isinstance(name, str) and not name.startswith("__")]
    return found + list(getattr(value, "__dict__", {}).values())


def closure_values(function: FunctionType) -> list[object]:
    """Return the values of the variables of outer functions that a function uses."""
    return [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
