"""Text keeps to standard terms, and lines of the documentation to 120 characters."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORDS = re.compile(
    r"\b(besides?|tell|tells|told|goes on|go on|in turns|the way back|cannot be had|what comes of it)\b", re.IGNORECASE
)
# Names and sentences in which such a word means what it says.
LITERAL = (".tell()",)
# Files that are not rewritten yet, and how many such words each may still have: a number only falls.
REMAINING: dict[str, int] = {
    "docs/generate_models.py": 2,
    "docs/models.md": 2,
    "src/senet/benchmark/measuring.py": 1,
    "src/senet/cli/bench.py": 1,
    "src/senet/cli/common/paper_lines.py": 1,
    "src/senet/data/checking.py": 1,
    "src/senet/data/sources/class_folders.py": 1,
    "src/senet/data/sources/hugging_face.py": 1,
    "src/senet/data/sources/torchvision_sets.py": 1,
    "src/senet/insertion/families.py": 4,
    "src/senet/insertion/sites.py": 2,
    "src/senet/models/bn_inception.py": 4,
    "src/senet/models/libraries.py": 4,
    "src/senet/models/shake_shake.py": 1,
    "src/senet/models/shufflenet.py": 2,
    "src/senet/models/table.py": 2,
    "src/senet/models/units.py": 2,
    "src/senet/nn/batch_norm.py": 1,
    "src/senet/nn/batch_norm_utils.py": 1,
    "src/senet/training/checkpoint.py": 7,
    "src/senet/training/loop.py": 6,
    "src/senet/training/optimizers.py": 3,
    "src/senet/training/reproducibility.py": 1,
    "src/senet/training/runner.py": 4,
    "src/senet/training/signals.py": 1,
    "src/senet/training/trainer.py": 2,
}
WIDTH = 120
# Pages that a command writes are as wide as their data.
GENERATED = ("docs/models.md", "docs/reproduce.md", "docs/studies/")
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
    if not str(page.relative_to(ROOT)).startswith(GENERATED)
]


def texts() -> Iterator[Path]:
    """Source, templates and recipes of the package, and the documentation."""
    for folder in ("src", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            if (
                path.suffix in (".py", ".pyi", ".md", ".toml", ".js", ".css", ".html", ".j2")
                and "vendor" not in path.parts
            ):
                yield path
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md"))


def found_in(text: str) -> list[str]:
    """Return the words of the list in a text, without literal uses."""
    for literal in LITERAL:
        text = text.replace(literal, "")
    return WORDS.findall(text)


def long_lines(text: str) -> list[int]:
    """Return the numbers of lines that are too long, but for tables, images, options of MkDocs and blocks of code."""
    lines, code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        code ^= line.lstrip().startswith("```")
        if len(line) > WIDTH and not code and not line.startswith(("|", "![", "    options:")):
            lines.append(number)
    return lines


def test_text_has_standard_terms() -> None:
    counts = {str(path.relative_to(ROOT)): len(found_in(path.read_text(encoding="utf-8"))) for path in texts()}
    assert len(counts) > 300
    more = {name: count for name, count in counts.items() if count > REMAINING.get(name, 0)}
    assert not more


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_documentation_are_short(page: Path) -> None:
    assert not long_lines(page.read_text(encoding="utf-8"))


def test_what_is_not_standard_is_found() -> None:
    """Otherwise the tests above would pass whatever is written."""
    assert found_in("a file.tell() and what is Told beside it goes on") == ["Told", "beside", "goes on"]
    assert not found_in("telling alongside, in turn")
    assert long_lines("x" * 121 + "\n| " + "x" * 121 + "\n```\n" + "x" * 121 + "\n```\n" + "x" * 121) == [1, 6]
