"""What the site's generator does not check itself, although a reader would miss it.

`zensical build --strict` fails on links, anchors and cross-references that lead nowhere, and on objects that do not
exist. It accepts a navigation without some pages or with pages that are missing, and warnings about docstrings.
"""

import logging
import tomllib
from collections.abc import Iterator
from typing import Any

import griffe
import pytest

import senet
from tests.documentation.blocks import ROOT
from tests.test_markdown import documented

DOCS = ROOT / "docs"
PROJECT = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
PAGES = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def entries(nav: list[Any]) -> Iterator[str]:
    """Yield the pages of a navigation, in order."""
    for entry in nav:
        for target in entry.values() if isinstance(entry, dict) else [entry]:
            yield from entries(target) if isinstance(target, list) else [target]


def test_every_page_is_in_the_navigation_once() -> None:
    listed = list(entries(PROJECT["nav"]))
    assert sorted(listed) == sorted(PAGES)


def test_the_site_shows_the_version() -> None:
    assert PROJECT["site_name"] == f"senet {senet.__version__}"


def documented_objects() -> list[str]:
    return sorted({name for page in PAGES for name in documented(DOCS / page)})


def with_public_members(one: griffe.Object | griffe.Alias) -> Iterator[griffe.Object]:
    """Yield an object and, of a class or a module, its public members that are defined there."""
    final = one.final_target if isinstance(one, griffe.Alias) else one
    yield final
    for name, member in final.members.items():
        if not name.startswith("_") and not member.is_alias:
            yield from with_public_members(member)


def docstring_warnings(package: griffe.Object, names: list[str], caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return griffe's warnings about the docstrings of some objects of a package."""
    with caplog.at_level(logging.WARNING, logger="griffe"):
        for name in names:
            for one in with_public_members(package[name.partition(".")[2]]):
                if one.docstring is not None:
                    one.docstring.parse("google")
    return [record.getMessage() for record in caplog.records]


def test_docstrings_of_documented_objects_are_understood(caplog: pytest.LogCaptureFixture) -> None:
    package = griffe.load("senet", search_paths=[ROOT / "src"])
    assert isinstance(package, griffe.Module)
    names = documented_objects()
    assert len(names) > 50
    assert docstring_warnings(package, names, caplog) == []


def test_docstrings_with_mistakes_are_found(caplog: pytest.LogCaptureFixture) -> None:
    code = 'def f(a: int) -> None:\n    """F.\n\n    Args:\n        b: not there.\n    """\n'
    with griffe.temporary_visited_module(code, module_name="one") as module:
        found = docstring_warnings(module, ["one.f"], caplog)
    assert any("'b' does not appear in the function signature" in text for text in found)
    assert list(entries(["a.md", {"B": [{"C": "c.md"}, "d.md"]}])) == ["a.md", "c.md", "d.md"]
