"""Help and limits of a recipe's keys, in the metadata of its fields, and the checks that use them."""

from collections.abc import Callable
from dataclasses import Field, fields
from inspect import cleandoc
from itertools import chain
from textwrap import wrap
from typing import Any, Literal, get_origin

from senet.utils.errors import shown
from senet.utils.limits import check_at_most

__all__ = ["check_limits", "check_type", "document_fields", "key"]


def key(
    help: str,
    *,
    least: float | None = None,
    most: int | None = None,
    below: int | None = None,
    between: tuple[float, float] | None = None,
    se_only: bool = False,
) -> dict[str, Any]:
    """Return the metadata of a key's field.

    Args:
        help: the text of the key in the docstring of `Recipe` and in the comments of written recipes.
        least: the lowest value; numbers then have to be finite.
        most: the highest value.
        below: a limit that no value reaches.
        between: limits of an open interval.
        se_only: whether the key has no effect on a network without SE, or is refused there.
    """
    return {"help": help, "least": least, "most": most, "below": below, "between": between, "se_only": se_only}


def check_limits(recipe: Any) -> None:
    """Check the values of a recipe against the limits of their fields.

    Raises:
        ValueError: a value is outside its limits.
    """
    for one in fields(recipe):
        _check(one, getattr(recipe, one.name))


def _check(field: Field[Any], value: Any) -> None:
    name, limits = field.name, field.metadata
    least, below, between = limits["least"], limits["below"], limits["between"]
    if least is not None and not least <= value < float("inf"):
        finite = ", and finite" if field.type is float else ""
        raise ValueError(f"{name} must be {least} or more{finite}, got {value}")
    if limits["most"] is not None:
        check_at_most(name, value, limits["most"])
    if below is not None and not value < below:
        limit = f"2**{below.bit_length() - 1}" if below > 1 else below
        raise ValueError(f"{name} must be below {limit}, got {value}")
    if between is not None and not between[0] < value < between[1]:
        raise ValueError(f"{name} must be between {between[0]} and {between[1]}, got {value}")


def document_fields(recipe: type) -> type:
    """Decorate a dataclass: its docstring lists the fields with their help, above the section "Raises"."""
    summary, section, raises = cleandoc(recipe.__doc__ or "").partition("Raises:\n")
    if section:  # python -OO removes docstrings
        entries = [f"{one.name}: {one.metadata['help']}" for one in fields(recipe)]
        lines = [wrap(entry, 116, initial_indent=" " * 4, subsequent_indent=" " * 8) for entry in entries]
        recipe.__doc__ = "\n".join([f"{summary}Attributes:", *chain(*lines), "", f"{section}{raises}"])
    return recipe


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)


# By the type of a field: the name of the type in messages, and the check of a value.
_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", _is_whole),
    float: ("a number", _is_number),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    str: ("text", lambda value: isinstance(value, str)),
    int | list[int]: ("pixels, or height and width", lambda value: isinstance(value, int | str | list)),
    list[int]: ("a list of whole numbers", lambda value: isinstance(value, list) and all(map(_is_whole, value))),
    list[float]: ("a list of numbers", lambda value: isinstance(value, list) and all(map(_is_number, value))),
    dict[str, Any]: ("a table", lambda value: isinstance(value, dict)),
}


def check_type(name: str, value: Any, kind: Any) -> None:
    """Check the type of a value that TOML, JSON or a setting gives for a key.

    Args:
        name: the key.
        value: its value.
        kind: the type of the key's field.

    Raises:
        ValueError: the value is of another type.
    """
    what, matches = _KINDS[str if get_origin(kind) is Literal else kind]
    if not matches(value):
        raise ValueError(f"{name} must be {what}, got {shown(value, 200)}")
