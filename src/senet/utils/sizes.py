"""Sizes of images: a number of pixels for squares, height and width for all others."""

import re
from collections.abc import Sequence
from typing import Any

from senet.utils.errors import shown

__all__ = ["Size", "SizeLike", "parse_size", "size_pair", "size_text"]

# Pixels of a side, or height and width.
Size = int | tuple[int, int]
# What is read as one.
SizeLike = int | str | Sequence[int]


def parse_size(value: Any, name: str) -> Size:
    """Read a size as options, recipes and model files write it.

    Args:
        value: pixels; or height and width, as (64, 32), [64, 32] or "64x32".
        name: of the option, for messages.

    Returns:
        Pixels where both are the same, otherwise (height, width).

    Raises:
        ValueError: it is no such size; the message names it.
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
    """(height, width) of a size."""
    size = parse_size(size, "size")
    return (size, size) if isinstance(size, int) else size


def size_text(size: SizeLike) -> str:
    """A size as text, height first: "64x32"."""
    return "x".join(map(str, size_pair(size)))
