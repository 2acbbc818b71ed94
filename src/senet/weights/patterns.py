"""Name patterns: rows of a module's names in two libraries, usable in both directions."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

__all__ = ["Names", "all_there", "rename", "reverse"]

# (the library's pattern, senet's pattern)
Names = tuple[tuple[str, str], ...]

_PLACE = re.compile(r"\{(\w)(-1)?\}")


@lru_cache(maxsize=1024)
def _parse(pattern: str) -> tuple[re.Pattern[str], tuple[tuple[str, int], ...]]:
    """Return a regular expression, and the name and offset of each of its groups."""
    text, places, end = "", [], 0
    for place in _PLACE.finditer(pattern):
        text += re.escape(pattern[end : place.start()]) + (r"([0-9a-z]+)" if place[1].isupper() else r"(\d+)")
        places.append((place[1], -1 if place[2] else 0))
        end = place.end()
    return re.compile(text + re.escape(pattern[end:])), tuple(places)


def rename(module: str, names: Names) -> str | None:
    """Rename a module by the first row whose first pattern matches; return None without a match.

    Args:
        module: name of the module, without the tensor's name.
        names: rows of two patterns with the same fields: "stage{s}.unit{u}" and "layer{s}.{u-1}". A field is an
            integer, `{u-1}` one less; a capital field matches letters and digits.
    """
    for source, target in names:
        expression, places = _parse(source)
        if match := expression.fullmatch(module):
            found = {
                name: text if name.isupper() else int(text) - less
                for (name, less), text in zip(places, match.groups(), strict=True)
            }
            return _fill(target, found)
    return None


def _fill(pattern: str, found: Mapping[str, int | str]) -> str:
    return _PLACE.sub(lambda place: str(int(found[place[1]]) - 1) if place[2] else str(found[place[1]]), pattern)


def reverse(names: Names) -> Names:
    """Return the rows with both patterns exchanged."""
    return tuple((target, source) for source, target in names)


def all_there(patterns: str, modules: Iterable[str]) -> bool:
    """Return whether each of several patterns, separated by spaces, matches a module."""
    modules = list(modules)
    return all(any(_parse(pattern)[0].fullmatch(module) for module in modules) for pattern in patterns.split())
