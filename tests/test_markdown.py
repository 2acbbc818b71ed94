"""What Markdown files link to and name is there: files, headings, objects, modules, and targets of make."""

import pkgutil
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify, unique
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "senet"
FOLDERS = (".ci", "benchmarks", "docs", "examples", "src", "tests")
PAGES = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
EVERY = pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in sorted(PAGES)])
# Fragments of images that the site shows with one color scheme only.
SCHEMES = ("only-light", "only-dark", "gh-light-mode-only", "gh-dark-mode-only")
# What readers have, or commands make for them: no file of the repository.
THEIRS = {"matplotlib.py", "site/", "tensorboard/", "train/", "val/"}


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def inline(page: Path, *kinds: str) -> Iterator[Token]:
    for token in tokens(page):
        yield from (child for child in token.children or [] if child.type in kinds)


def anchors(page: Path) -> set[str]:
    """Ids of headings as Python-Markdown writes them, and of objects that `:::` documents."""
    found: set[str] = set()
    parsed = tokens(page)
    for heading, text in pairwise(parsed):
        if heading.type == "heading_open":
            words = "".join(child.content for child in text.children or [])
            unique(slugify(words, "-"), found)  # which adds it
    return found | set(documented(page))


def documented(page: Path) -> list[str]:
    return re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)


def broken_links(page: Path) -> list[str]:
    """Targets of links and images that lead to no file, or to no heading or object of it."""
    broken = []
    for token in inline(page, "link_open", "image"):
        target = str(token.attrs.get("href", token.attrs.get("src")))
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        if token.type == "image" and anchor in SCHEMES:
            anchor = ""
        path = (page.parent / name).resolve() if name else page
        left_out = page.is_relative_to(ROOT / "docs") and not path.is_relative_to(ROOT / "docs")  # of the site
        found = path.exists() and not left_out
        if found and anchor:
            found = anchor in anchors(path) or is_member(anchor, documented(path))
        if not found:
            broken.append(target)
    return broken


def is_member(name: str, objects: list[str]) -> bool:
    """Whether a name is of something within an object that is documented."""
    return any(name.startswith(f"{one}.") for one in objects) and exists(name)


def exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def missing_files(page: Path) -> list[str]:
    """Words in back-quotes that name a file, a folder, a test, a module or a target of make that is not there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    missing = []
    for token in inline(page, "code_inline"):
        words = token.content.split()
        missing += [word for word in words if word not in THEIRS and is_path(word) and not is_there(word, page)]
        if words[:1] == ["make"] and not set(words[1:2]) <= targets:
            missing.append(token.content)
        for flag, module in pairwise(words):
            file = ROOT / f"{module.replace('.', '/')}.py"
            if flag == "-m" and module.partition(".")[0] in FOLDERS and not file.is_file():
                missing.append(module)
    return missing


def missing_names(page: Path) -> list[str]:
    """Names that are said to be in a file of the package, as "`NAME` in `file.py`", and that it does not define."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)`\s+in\s+`(?:src/)?(?:senet/)?([\w/]+\.py)`", text)
    return [
        name
        for name, path in named
        if not re.search(rf"^(?:class |def )?{name}\b", (PACKAGE / path).read_text(encoding="utf-8"), re.M)
    ]


def is_path(word: str) -> bool:
    """Whether a word names a file or a folder here, by its end or by the folder that it starts with."""
    if not re.fullmatch(r"[\w./*-]+(::\w+)?", word) or not word.strip("./"):
        return False
    first = word.partition("/")[0] if "/" in word else ""
    return bool(
        re.search(r"\.py(::\w+)?$", word)
        or first in (*FOLDERS, "senet")
        or re.fullmatch(r"[a-z_]+/", word)
        # `runs/` in text is the folder of a user's runs, `senet/runs/` the package.
        or (first and first != "runs" and (PACKAGE / first).is_dir())
    )


def is_there(word: str, page: Path) -> bool:
    """Whether a path is of the repository, of the package, or next to the page; a bare one may be deeper in it."""
    path, _, test = word.partition("::")
    found = [file for top in (ROOT, ROOT / "src", PACKAGE, page.parent) for file in top.glob(path.rstrip("/"))]
    if path.partition("/")[0] not in (*FOLDERS, "senet"):
        found += PACKAGE.rglob(path.rstrip("/"))
    if path.endswith("/"):
        found = [file for file in found if file.is_dir()]
    return any(not test or f"def {test}(" in file.read_text(encoding="utf-8") for file in found)


@EVERY
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken_links(page)


@EVERY
def test_files_that_are_named_exist(page: Path) -> None:
    assert not missing_files(page)


@EVERY
def test_names_are_in_the_files_that_are_said_to_hold_them(page: Path) -> None:
    assert not missing_names(page)


@EVERY
def test_objects_that_are_documented_exist(page: Path) -> None:
    assert not [name for name in documented(page) if not exists(name)]


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    """Otherwise the tests above would pass whatever is written."""
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# Two words\n\n## Two words\n\n### `code` & more\n\n::: senet.SqueezeExcitation\n")
    right = ["other.md", "#here", "other.md#two-words", "other.md#two-words_1", "other.md#code-more", "https://a.b/c"]
    right += ["other.md#senet.SqueezeExcitation", "other.md#senet.SqueezeExcitation.excite"]
    wrong = ["none.md", "#there", "other.md#two-words_2", "none.md#here", "/other.md"]
    wrong += ["other.md#senet.SEBatchNorm", "other.md#senet.SqueezeExcitation.exite"]
    links = "\n".join(f"[text]({target})\n\n| ![image]({target}) |\n|-|" for target in (*right, *wrong))
    page.write_text(f"# Here\n\n{links}\n\n```\n[not](parsed.md)\n```\n")
    assert broken_links(page) == [target for target in wrong for _ in range(2)]
    page.write_text("![image](other.md#only-dark)\n\n[text](other.md#only-dark)\n")
    assert broken_links(page) == ["other.md#only-dark"]  # the link: only images have a color scheme
    there = [
        "src/senet/nn/block.py",
        "senet/nn/block.py",
        "block.py",
        "nn/fused/backends.py",
        "backends.py",
        "gates/",
        ".ci/run",
    ]
    there += ["insert*.py", "tests/test_markdown.py::test_links_lead_somewhere", "python benchmarks/gpu.py --case a/b"]
    there += [
        "make lint",
        "python -m tests.fuzz",
        "other.md",
        "timm/resnet50",
        "a / b",
        "1/2",
        "runs/demo",
        "examples/",
    ]
    gone = ["src/senet/blocks.py", "senet/none.py", "bloks.py", "nn/none.py", "insertion/block.py", "nowhere/"]
    gone += ["none_*.py", "tests/test_markdown.py::test_none", "docs/none.md", "benchmarks/none/", "insertion/none"]
    page.write_text("\n\n".join(f"`{word}`" for word in (*there, *gone, "make none", "python -m tests.none")))
    assert missing_files(page) == [*gone, "make none", "tests.none"]
    page.write_text(
        "`CATALOGUE` in `models/table.py`, `NONE` in\n`models/table.py`, `insert` in `senet/insertion/insert.py`"
    )
    assert missing_names(page) == ["NONE"]
