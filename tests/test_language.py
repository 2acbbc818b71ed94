"""Text keeps to standard terms, and lines of the documentation to 120 characters."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Not the standard term, or a word for word translation; "left out" and "of which", for example, are plain English.
WORDS = re.compile(
    r"\b(besides?|tell|tells|told|goes on|go on|in turns|the way back|cannot be had|what comes of it|comes to)\b",
    re.IGNORECASE,
)
# Uses in which such a word means what it says, and why.
LITERAL = {".tell()": "the method of files"}
WIDTH = 120
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NO_TEXT = {".png", ".json", ".typed", ".pyc"}


def texts() -> Iterator[Path]:
    """Source, templates and recipes of the package, and the documentation."""
    for folder in ("src", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix not in NO_TEXT and "vendor" not in path.parts:
                yield path
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"))


def found_in(text: str) -> list[str]:
    """Return the words of the list in a text, without literal uses."""
    for literal in LITERAL:
        text = text.replace(literal, "")
    return WORDS.findall(text)


def long_lines(text: str) -> list[int]:
    """Return the numbers of lines that are too long, but for tables, images, options of objects and blocks of code."""
    lines, code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        code ^= line.lstrip().startswith("```")
        if len(line) > WIDTH and not code and not line.startswith(("|", "![", "    options:")):
            lines.append(number)
    return lines


def test_text_has_standard_terms() -> None:
    found = {path.relative_to(ROOT): found_in(path.read_text(encoding="utf-8")) for path in texts()}
    assert len(found) > 300
    assert {str(name): words for name, words in found.items() if words} == {}


def test_literal_uses_are_there() -> None:
    every = "".join(path.read_text(encoding="utf-8") for path in texts())
    assert [use for use in LITERAL if use not in every] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_documentation_are_short(page: Path) -> None:
    assert not long_lines(page.read_text(encoding="utf-8"))


def test_what_is_not_standard_is_found() -> None:
    """Otherwise the tests above would pass whatever is written."""
    assert found_in("a file.tell() and what is Told beside it goes on") == ["Told", "beside", "goes on"]
    assert not found_in("telling alongside, in turn")
    assert long_lines("x" * 121 + "\n| " + "x" * 121 + "\n```\n" + "x" * 121 + "\n```\n" + "x" * 121) == [1, 6]
