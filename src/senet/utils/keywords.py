"""Keyword arguments: an unknown name is an error with the closest one; signatures list the keys of a TypedDict."""

import functools
import inspect
from collections.abc import Callable, Iterator
from inspect import Parameter, Signature
from typing import Any, TypeVar, Unpack, get_args, get_origin, get_type_hints

from senet.utils.errors import unknown_name

__all__ = ["check_keywords"]

F = TypeVar("F", bound=Callable[..., Any])


def check_keywords(**old: str) -> Callable[[F], F]:
    """Decorate a function or class to reject unknown keywords by name.

    An old name gives a TypeError with the new name, and an unknown one a TypeError with the closest match. Where the
    signature ends in `**keywords: Unpack[SomeTypedDict]`, `help` and `inspect.signature` show the keys instead, with
    the default `...`. A function with other `**keywords` checks them itself.

    Args:
        **old: the new names of arguments, by old name.
    """

    def decorate(function: F) -> F:
        if isinstance(function, type):
            construct: Any = function
            construct.__init__ = _checked(construct.__init__, function.__name__, old)
            return function
        checked: F = _checked(function, function.__name__, old)
        return checked

    return decorate


class _Omitted:
    """The default of a key that may be left out, shown as in stub files."""

    def __repr__(self) -> str:
        return "..."


def _checked(function: Any, name: str, old: dict[str, str]) -> Any:
    signature = _expanded(inspect.signature(function))
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    by_keyword = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    known = [one.name for one in signature.parameters.values() if one.kind in by_keyword and one.name != "self"]

    @functools.wraps(function)
    def checked(*args: Any, **keywords: Any) -> Any:
        for keyword in keywords:
            if keyword in old:
                raise TypeError(f"{name} has no option {keyword!r}: it is {old[keyword]}= now")
            if keyword not in known and Parameter.VAR_KEYWORD not in kinds:
                raise TypeError(f"{name}: {unknown_name('option', keyword, known)}")
        return function(*args, **keywords)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


def _expanded(signature: Signature) -> Signature:
    """Return a signature with the keys of a TypedDict in place of `**keywords`."""

    def parameters() -> Iterator[Parameter]:
        for parameter in signature.parameters.values():
            if parameter.kind is Parameter.VAR_KEYWORD and get_origin(parameter.annotation) is Unpack:
                for key, kind in get_type_hints(get_args(parameter.annotation)[0]).items():
                    yield Parameter(key, Parameter.KEYWORD_ONLY, default=_Omitted(), annotation=kind)
            else:
                yield parameter

    return signature.replace(parameters=list(parameters()))
