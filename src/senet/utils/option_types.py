"""Check the types of options: a TypeError names the option, what it must be, and the value."""

from numbers import Integral
from os import PathLike
from typing import Any

from senet.utils.arguments import argument_name
from senet.utils.errors import shown

__all__ = ["check_integer", "check_number", "check_path", "check_switch"]


def check_integer(name: str, value: Any) -> None:
    """Check that an option is an integer, of Python or NumPy; True and False are none.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{argument_name(name)} must be an integer, got {shown(value)}")


def check_number(name: str, value: Any) -> None:
    """Check that an option is an integer or a float; True and False are none.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{argument_name(name)} must be a number, got {shown(value)}")


def check_path(name: str, value: Any) -> None:
    """Check that an option is a path: a str or an os.PathLike.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{argument_name(name)} must be a path (str or os.PathLike), got {shown(value)}")


def check_switch(name: str, value: Any) -> None:
    """Check that an option is True or False.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{argument_name(name)} must be True or False, got {shown(value)}")
