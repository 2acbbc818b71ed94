"""Name patterns: how a module is called in two places, as one row that is read in both directions."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

__all__ = ["Names", "all_there", "rename", "reverse"]

# (a pattern there, a pattern here)
Names = tuple[tuple[str, str], ...]

_PLACE = re.compile(r"\{(\w)(-1)?\}")


@lru_cache(maxsize=1024)
def _parse(pattern: str) -> tuple[re.Pattern[str], tuple[tuple[str, int], ...]]:
    """A regular expression, and for each of its groups the name and what was subtracted from the number there."""
    text, places, end = "", [], 0
    for place in _PLACE.finditer(pattern):
        text += re.escape(pattern[end : place.start()]) + (r"([0-9a-z]+)" if place[1].isupper() else r"(\d+)")
        places.append((place[1], -1 if place[2] else 0))
        end = place.end()
    return re.compile(text + re.escape(pattern[end:])), tuple(places)


def rename(module: str, names: Names) -> str | None:
    """The name of a module by the first row whose first pattern it is; None where there is no such row.

    Args:
        module: a module's name, without that of the tensor in it.
        names: rows of two patterns with the same places: "stage{s}.unit{u}" and "layer{s}.{u-1}". A place is a whole
            number, and `{u-1}` is one less; a capital stands for letters and digits.
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
    """The same rows, from here to there."""
    return tuple((target, source) for source, target in names)


def all_there(patterns: str, modules: Iterable[str]) -> bool:
    """Whether each of several patterns, with blanks between, is the name of one of the modules."""
    modules = list(modules)
    return all(any(_parse(pattern)[0].fullmatch(module) for module in modules) for pattern in patterns.split())
