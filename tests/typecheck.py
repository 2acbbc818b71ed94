"""The checker of annotations at run time; an int will do where a float is asked for, as type checkers have it.

A `Literal` counts as the types of its values: senet checks the values itself, and its messages are tested.
"""

from collections.abc import Callable
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))

F = TypeVar("F", bound=Callable[..., Any])


def check(function: F) -> F:
    """Check the arguments and the result of a function whenever it is called."""
    if isinstance(getattr(function, "__annotations__", None), dict):
        function.__annotations__ = {name: _types(hint) for name, hint in function.__annotations__.items()}
    return _check(function)


def _types(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return reduce(or_, map(type, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, map(_types, get_args(hint)))
    return hint
