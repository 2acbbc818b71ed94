"""Arguments in messages: `example=` in Python is `--input` on the command line."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

__all__ = ["argument", "as_options"]

_NONE: Mapping[str, str] = MappingProxyType({})
_OPTIONS: ContextVar[Mapping[str, str]] = ContextVar("options", default=_NONE)


def argument(name: str, value: object = None) -> str:
    """Return an argument for a message, as it is written where the function was called.

    Args:
        name: of the argument.
        value: a text, a number, or a list of them; None for the name only.

    Returns:
        `at=` or `at="layer3.*"`; inside `as_options({"at": "--at"})`: `--at` or `--at 'layer3.*'`.
    """
    option = _OPTIONS.get().get(name)
    if option is None:
        text = "" if value is None else json.dumps(value) if isinstance(value, str) else repr(value)
        return f"{name}={text}"
    if value is None:
        return option
    values = value if isinstance(value, list) else [value]
    if all(isinstance(one, str) for one in values):
        return " ".join(f"{option} {shlex.quote(str(one))}" for one in values)
    return f"{option} {','.join(map(str, values))}"


@contextmanager
def as_options(options: Mapping[str, str]) -> Iterator[None]:
    """Write arguments as options of a command in messages that are made inside.

    Args:
        options: the options by the name of the argument, such as {"example": "--input"}.
    """
    token = _OPTIONS.set(options)
    try:
        yield
    finally:
        _OPTIONS.reset(token)
