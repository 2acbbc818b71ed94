"""Arguments in messages: `example=` in Python is `--input` on the command line."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["argument", "argument_name", "as_options", "in_python_or"]

# Of the command that is running; None in Python.
_OPTIONS: ContextVar[Mapping[str, str] | None] = ContextVar("options", default=None)


def argument(name: str, value: object = None) -> str:
    """Return an argument for a message, as it is written where the function was called.

    Args:
        name: of the argument.
        value: a text, a number, or a list of them; None for the name only.

    Returns:
        `at=` or `at="layer3.*"`; inside `as_options({"at": "--at"})`: `--at` or `--at 'layer3.*'`.
    """
    option = _option(name)
    if option is None:
        text = "" if value is None else json.dumps(value) if isinstance(value, str) else repr(value)
        return f"{name}={text}"
    if value is None:
        return option
    if not option.startswith("-"):  # a setting
        return f"{option}={value}"
    values = value if isinstance(value, list) else [value]
    if all(isinstance(one, str) for one in values):
        return " ".join(f"{option} {shlex.quote(str(one))}" for one in values)
    return f"{option} {','.join(map(str, values))}"


def argument_name(name: str) -> str:
    """Return the name of an argument as the subject of a message: `reduction`, or `--reduction` of a command."""
    return _option(name) or name


def in_python_or(python: str, command: str) -> str:
    """Return the part of a message that names functions of Python; on the command line, the other one."""
    return python if _OPTIONS.get() is None else command


def _option(name: str) -> str | None:
    return (_OPTIONS.get() or {}).get(name)


@contextmanager
def as_options(options: Mapping[str, str]) -> Iterator[None]:
    """Write arguments as options of a command in messages that are made inside.

    Args:
        options: the options by the name of the argument, such as {"example": "--input"}, or settings, such as
            {"reduction": "network.reduction"}; in addition to those of an outer block.
    """
    token = _OPTIONS.set({**(_OPTIONS.get() or {}), **options})
    try:
        yield
    finally:
        _OPTIONS.reset(token)
