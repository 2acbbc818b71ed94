"""Render Jinja templates of a package: HTML and Markdown, with escaping by default."""

import re
from functools import cache
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["plain_markdown", "render"]


def render(package: str, template: str, /, **values: Any) -> str:
    """Render a template in the folder `templates` of a package.

    Values are escaped: for Markdown in `.md.jinja` files, for HTML in all others. `value | safe` is not.
    In Markdown, the filter `paragraph` wraps a value, and `item` makes an item of a list of it.

    Args:
        package: name of the package, usually `__package__`.
        template: name of the file.
        values: variables of the template. A variable that the template uses must be given.
    """
    return _environment(package, template.endswith(".md.jinja")).get_template(template).render(values)


def plain_markdown(text: str) -> str:
    """Return text in one line in which Markdown finds no markup, in a table as well."""
    text = re.sub(r"([\\`*_{}\[\]|#])", r"\\\1", " ".join(text.split()))
    # Not every Markdown renderer knows a backslash before these.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@cache
def _environment(package: str, markdown: bool) -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=not markdown,
        finalize=_finalize_markdown if markdown else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"item": _item, "paragraph": _paragraph}
    return environment


def _paragraph(text: str) -> Any:
    """Escape text for Markdown, and wrap it."""
    return _wrapped(text)


def _item(text: str) -> Any:
    """Escape text for Markdown, and wrap it as an item of a list."""
    return _wrapped(text, "- ", "  ")


def _wrapped(text: str, first: str = "", rest: str = "") -> Any:
    from markupsafe import Markup

    wrapper = TextWrapper(118, first, rest, break_long_words=False, break_on_hyphens=False)
    return Markup(wrapper.fill(plain_markdown(text)))


def _finalize_markdown(value: Any) -> Any:
    return value if hasattr(value, "__html__") else plain_markdown(str(value))
