"""Settings "KEY=VALUE" of the command line: a key, and a value in the syntax of TOML."""

import tomllib
from typing import Any

from senet.utils.errors import FileError
from senet.utils.input_files import check_numbers, reading

__all__ = ["parse_setting"]


def parse_setting(setting: str) -> tuple[str, Any]:
    """Return the key and the value of a setting; a value that is no TOML is text.

    Args:
        setting: "KEY=VALUE", such as "epochs=30" or "network.gate=tanh".

    Raises:
        ValueError: there is no key or no "=", or the value is a number that is out of range.
    """
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ValueError(f"invalid --set {setting!r}: expected KEY=VALUE, such as epochs=30 or network.reduction=8")
    with reading(key, error=FileError, message="invalid --set {name}=...: {reason}"):
        return key, _parse_value(text)


def _parse_value(text: str) -> Any:
    try:
        values = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    check_numbers(values)
    return values["value"]
