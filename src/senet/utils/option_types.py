"""Check the types of options: a TypeError names the option, what it must be, and the value."""

from typing import Any

from senet.utils.errors import shown

__all__ = ["check_integer", "check_number", "check_switch"]


def check_integer(name: str, value: Any) -> None:
    """Check that an option is an integer; True and False are none.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")


def check_number(name: str, value: Any) -> None:
    """Check that an option is an integer or a float; True and False are none.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {shown(value)}")


def check_switch(name: str, value: Any) -> None:
    """Check that an option is True or False.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
