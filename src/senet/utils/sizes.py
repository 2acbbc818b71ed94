"""Image sizes: one number of pixels for squares, otherwise height and width."""

import re
from collections.abc import Sequence
from typing import Any

from senet.utils.errors import shown

__all__ = ["Size", "SizeLike", "parse_size", "size_pair", "size_text"]

# Side in pixels, or (height, width).
Size = int | tuple[int, int]
# Values that `parse_size` accepts.
SizeLike = int | str | Sequence[int]


def parse_size(value: Any, name: str) -> Size:
    """Parse a size from an option, recipe or model file.

    Args:
        value: pixels; or height and width, as (64, 32), [64, 32] or "64x32".
        name: name of the option, for messages.

    Returns:
        Pixels of a side if height equals width, otherwise (height, width).

    Raises:
        ValueError: the value is not a size.
    """
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,9}(\s*[xX]\s*-?\d{1,9})?\s*", value):
        parts: Any = [int(part) for part in re.split("[xX]", value)]
    else:
        parts = list(value) if isinstance(value, list | tuple) else [value]
    if len(parts) not in (1, 2) or not all(isinstance(n, int) and not isinstance(n, bool) for n in parts):
        raise ValueError(
            f"{name} must be pixels, such as 224, or height and width, such as 64x32 or [64, 32], got {shown(value)}"
        )
    return parts[0] if len(set(parts)) == 1 else (parts[0], parts[1])


def size_pair(size: SizeLike) -> tuple[int, int]:
    """Return (height, width)."""
    size = parse_size(size, "size")
    return (size, size) if isinstance(size, int) else size


def size_text(size: SizeLike) -> str:
    """Format a size as text, height first: "64x32"."""
    return "x".join(map(str, size_pair(size)))
