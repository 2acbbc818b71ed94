"""Text of others for a reader: names of classes, tensors and files hold whatever their authors put there."""

import re

__all__ = ["printable", "shortened"]

# Controls of C0 and C1 (a terminal obeys ESC and CSI), directions and separators of lines (which reorder what is
# read), and half surrogates (bytes of file names that are no UTF-8, which no encoding can write).
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
# Of one word; a path has 4,096 characters at most.
_LONGEST = 1000


def printable(text: str, *, one_line: bool = False) -> str:
    r"""Return text with what a terminal would obey escaped as in Python: `\x1b`, `\u202e`.

    Args:
        text: anything.
        one_line: escape new lines and tabs as well, as in a cell of a table.
    """
    text = _CONTROLS.sub(_escape, text)
    return text.replace("\n", "\\n").replace("\t", "\\t") if one_line else text


def shortened(text: str) -> str:
    """Return text in which words of more than 1,000 characters, such as a number of 5,000 digits, lose their middle."""
    return re.sub(rf"\S{{{_LONGEST + 1},}}", lambda word: _middle(word[0]), text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _middle(word: str) -> str:
    return f"{word[:60]}...{word[-20:]} ({len(word):,} characters)"
