"""Templates escape what they are given: for HTML, and for Markdown."""

import importlib
from collections.abc import Iterator

import pytest
from jinja2 import UndefinedError

from senet.utils.templates import plain_markdown, render

STRANGE = '<b>"a" & b</b> | `c` *d*\n# e'


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A package with a template of HTML and one of Markdown, which show a value; Python imports it once."""
    path = tmp_path_factory.mktemp("packages")
    folder = path / "pages_of_a_test" / "templates"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "page.html.jinja").write_text("<p>{{ value }}</p>\n")
    (folder / "page.md.jinja").write_text(
        "{{ value }}\n{{ value | safe }}\n{{ value | paragraph }}\n{{ value | item }}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path)
        importlib.invalidate_caches()
        yield "pages_of_a_test"


def test_html_is_escaped(package: str) -> None:
    expected = "<p>&lt;b&gt;&#34;a&#34; &amp; b&lt;/b&gt; | `c` *d*\n# e</p>\n"
    assert render(package, "page.html.jinja", value=STRANGE) == expected


def test_markdown_is_escaped(package: str) -> None:
    escaped = r'&lt;b&gt;"a" &amp; b&lt;/b&gt; \| \`c\` \*d\* \# e'
    assert plain_markdown(STRANGE) == escaped
    found = render(package, "page.md.jinja", value=STRANGE)
    assert found == f"{escaped}\n{STRANGE}\n{escaped}\n- {escaped}\n"


def test_markdown_is_wrapped(package: str) -> None:
    lines = render(package, "page.md.jinja", value="word " * 50).splitlines()
    assert len(lines[0]) > 200
    assert max(map(len, lines[2:])) <= 118
    assert [line[:2] for line in lines[-3:]] == ["- ", "  ", "  "]


def test_a_value_that_is_missing_is_an_error(package: str) -> None:
    with pytest.raises(UndefinedError, match="'value' is undefined"):
        render(package, "page.html.jinja")
