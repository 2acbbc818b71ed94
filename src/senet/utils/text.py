"""Sanitise text from files for display: names of classes, tensors and files may hold any characters."""

import re

__all__ = ["natural_key", "printable", "shortened"]

# C0 and C1 control characters (terminals execute ESC and CSI sequences), bidirectional marks and line separators (which
# reorder displayed text), and lone surrogates (non-UTF-8 bytes of file names, which cannot be encoded).
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
# Longest word shown in full, in characters.
_LONGEST = 1000


def printable(text: str, *, one_line: bool = False) -> str:
    r"""Escape control characters in text as Python does: `\x1b`, `\u202e`.

    Args:
        text: any text.
        one_line: also escape newlines and tabs, for table cells.
    """
    text = _CONTROLS.sub(_escape, text)
    return text.replace("\n", "\\n").replace("\t", "\\t") if one_line else text


def shortened(text: str) -> str:
    """Replace the middle of words longer than 1,000 characters, such as a 5,000-digit number, by an ellipsis."""
    return re.sub(rf"\S{{{_LONGEST + 1},}}", lambda word: _middle(word[0]), text)


def natural_key(text: str) -> list[int | str]:
    """Return a key that sorts text in natural order, "img2" before "img10", whatever the case.

    The order is that of `timm.utils.natural_key`, whose import takes seconds: class indices in timm depend on it.
    """
    # Every second part is a number.
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", text.lower()))]


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _middle(word: str) -> str:
    return f"{word[:60]}...{word[-20:]} ({len(word):,} characters)"
