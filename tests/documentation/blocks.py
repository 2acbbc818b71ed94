"""Blocks of code in the documentation, and the lines of those for a shell."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Pages that docs/run_tutorials.py runs as a whole.
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, relative to the repository, its number there, its language and its text.

    The language is the first word after the fence; a title may follow.
    """

    page: str
    number: int
    language: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.page}-{self.number}"

    @property
    def in_tutorial(self) -> bool:
        return ROOT / self.page in TUTORIALS

    @property
    def commands(self) -> list[list[str]]:
        """Words of each command of a shell, also of a pipe, with continued lines joined and without comments."""
        lines = self.text.replace("\\\n", " ").replace(" 2>&1", "").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        return [list(command) for line in words for pipe, command in groupby(line, "|".__eq__) if not pipe]


def blocks_in(text: str, page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order.

    Raises:
        ValueError: a fence is indented or not closed, and its block would be missed.
    """
    found = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", text, re.M)
    if 2 * len(found) != len(re.findall(r"^\s*(?:```|~~~)", text, re.M)):
        raise ValueError(f"{page}: a fence is indented, not closed or not of back-quotes")
    for number, (fence, content) in enumerate(found):
        yield Block(page, number, fence.partition(" ")[0], content)


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages, of these languages if any are given."""
    every = [
        block for page in PAGES for block in blocks_in(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))
    ]
    return [block for block in every if not languages or block.language in languages]
