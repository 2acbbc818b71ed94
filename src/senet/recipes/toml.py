"""Recipes as TOML: built-in recipes and files, changed by settings, written with a comment above each key."""

import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.resources import files
from math import ceil
from os import PathLike
from pathlib import Path
from typing import Any

import tomli_w

from senet.recipes.recipe import Recipe, build_recipe, check_key
from senet.utils.errors import unknown_name
from senet.utils.files import atomic_path
from senet.utils.input_files import read_text, read_toml
from senet.utils.renamed import current_recipe, current_settings
from senet.utils.settings import parse_setting

__all__ = ["apply_settings", "list_recipes", "load_recipe", "recipe_heading", "recipe_text", "write_recipe"]


# Keys measured in epochs (or in iterations), and their values for fewer of them: exact if possible, and milestones
# rounded up, so that none falls to 0.
_IN_EPOCHS: dict[str, Callable[[Any, int, int], Any]] = {
    "warmup": lambda value, length, before: value * length / before,
    "milestones": lambda value, length, before: [-(-milestone * length // before) for milestone in value],
    "freeze_bn_epochs": lambda value, length, before: value * length // before,
}


def list_recipes() -> list[str]:
    """Return the names of the built-in recipes, sorted.

    Examples:
        >>> "cifar" in senet.list_recipes()
        True
    """
    return sorted(p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name.endswith(".toml"))


def load_recipe(
    recipe: str | PathLike[str], settings: Sequence[str] = (), *, note: Callable[[str], None] = lambda line: None
) -> Recipe:
    """Load a built-in recipe or a TOML file, and change some of its values.

    A setting of fewer epochs or iterations shortens the recipe's warmup, milestones and freeze_bn_epochs in proportion,
    unless they are set as well.

    Args:
        recipe: a name of `list_recipes`, or a path that ends in `.toml`. A file may extend another recipe:
            `base = "cifar"`, or `base = "mine.toml"`, a path relative to the file.
        settings: "KEY=VALUE", with VALUE in TOML syntax or a bare word; "network.KEY=VALUE" sets an option of the
            network.
        note: called with a line for each value that is shortened.

    Raises:
        ValueError: an unknown recipe, a file that is not TOML, an unknown key (the message names the closest one), or
            an invalid value; the message names the file.

    Examples:
        >>> recipe = senet.load_recipe("cifar", ["epochs=30", "network.reduction=8"])
        >>> recipe.epochs, recipe.network
        (30, {'reduction': 8})
    """
    before, settings = _read(_find(recipe)), current_settings(settings)
    values = _shorten(before, apply_settings(before, settings), _keys(settings), note)
    try:
        return build_recipe(values)
    except ValueError as error:
        if not str(recipe).endswith(".toml"):  # the values of a built-in recipe are valid: the settings are at fault
            raise
        given = "".join(f" --set {setting}" for setting in settings)
        raise ValueError(f"the recipe {recipe}{given and f' with{given}'}: {error}") from error


def _keys(settings: Sequence[str]) -> set[str]:
    return {setting.partition("=")[0].strip() for setting in settings}


def _shorten(
    before: Mapping[str, Any],
    values: dict[str, Any],
    given: Iterable[str],
    note: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Shorten the values that a recipe measures in epochs or iterations if their number is reduced.

    Args:
        before: values before the change of epochs or iterations.
        values: values after it.
        given: keys that were changed along with them, and stay.
        note: called with a line for each value that is shortened.

    Raises:
        ValueError: epochs are replaced by iterations, or the reverse, and a value in the other unit stays.
    """
    unit = "iterations" if values.get("iterations") else "epochs"
    measured = {key: before.get(key) for key in _IN_EPOCHS if key not in given and before.get(key)}
    other = {"epochs": "iterations", "iterations": "epochs"}[unit]
    if before.get(other) and not before.get(unit) and measured:
        raise ValueError(
            f"{unit} replaces {other}={before[other]}, in which the recipe has {' and '.join(measured)}: set these as "
            f"well"
        )
    length_before, length = before.get(unit), values.get(unit)
    if not (type(length_before) is type(length) is int and 0 < length < length_before):
        return values
    for key, old in measured.items():
        check_key(key, old)
        new = _IN_EPOCHS[key](old, length, length_before)
        # A step has no parts, unlike an epoch.
        values[key] = new = ceil(new) if unit == "iterations" and isinstance(new, float) else new
        if new != old:
            note(f"{unit}={length} of {length_before}: {key} is shortened in proportion, {old} -> {new}")
    return values


def apply_settings(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return a recipe's values changed by settings "KEY=VALUE", see `load_recipe`.

    Raises:
        ValueError: a setting without "=" or of an unknown table, or `network` is not a table.
    """
    values = dict(values)
    for setting in current_settings(settings):
        key, value = parse_setting(setting)
        table, dot, option = key.partition(".")
        if not dot:
            values[key] = value
        elif table == "network" and option:
            check_key("network", values.get("network", {}))
            values["network"] = {**values.get("network", {}), option: value}
        else:
            raise ValueError(f"unknown key {key!r}; a recipe has one table, [network], as in network.reduction=8")
    check_key("network", values.get("network", {}))
    return values


def recipe_text(recipe: Recipe, heading: str = "") -> str:
    """Return all values of a recipe as TOML that `load_recipe` reads, with a comment above each key.

    Args:
        recipe: the recipe.
        heading: lines for the top of the text, written as comments.

    Examples:
        >>> from senet.recipes import recipe_text
        >>> text = recipe_text(senet.load_recipe("digits"))
        >>> "lr = 0.1" in text
        True
    """
    help_texts = {one.name: one.metadata["help"] for one in fields(Recipe)}
    # The name of a folder may have characters that TOML or UTF-8 cannot encode.
    lines = [
        f"# {''.join(c if c.isprintable() else repr(c)[1:-1] for c in line)}".rstrip() for line in heading.split("\n")
    ]
    lines = lines if heading else []
    for key, value in asdict(recipe).items():
        if key == "network":
            continue
        lines += ["", *textwrap.wrap(help_texts[key], 116, initial_indent="# ", subsequent_indent="#   ")]
        lines.append(_line(key, value))
    # TOML has no None, which is the default of each option that allows it.
    network = {key: _as_toml(value) for key, value in recipe.network.items() if value is not None}
    if network:
        lines += ["", f"# {help_texts['network']}", tomli_w.dumps({"network": network}).rstrip()]
    return "\n".join(lines).lstrip("\n") + "\n"


def write_recipe(recipe: Recipe, path: str | PathLike[str], **heading: Any) -> None:
    """Write all values of a recipe, see `recipe_text`.

    Args:
        recipe: the recipe.
        path: of the file.
        heading: names and values for comments at the top.

    Raises:
        OSError: the file cannot be written.
    """
    lines = "\n".join(f"{key} = {value}" for key, value in heading.items())
    with atomic_path(path) as temporary:
        temporary.write_text(recipe_text(recipe, lines), encoding="utf-8")


def recipe_heading(recipe: str | PathLike[str]) -> str:
    """Return the comments at the top of a recipe's file: its purpose and the source of its values.

    Raises:
        ValueError: an unknown recipe.
    """
    lines = read_text(_find(recipe), "recipe").split("\n")
    count = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:count])


def _find(recipe: str | PathLike[str], extending: Any = None) -> Any:
    """Return the file of a recipe given by name or path; a path is relative to the file that extends it, if any."""
    if str(recipe).endswith(".toml"):
        path = Path(recipe) if extending is None else Path(extending).parent / recipe
        if not path.is_file():
            raise ValueError(f"no recipe file at {path}")
        return path
    path = _folder() / f"{recipe}.toml"
    if not path.is_file():
        raise ValueError(f"{unknown_name('recipe', str(recipe), list_recipes())} Or a path that ends in .toml.")
    return path


def _read(path: Any, extended_by: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values of a file, on top of those of its base."""
    real = os.path.realpath(str(path))
    if real in extended_by:
        raise ValueError(f"the recipe {path} is its own base, through {', '.join(extended_by)}; remove one base")
    values = current_recipe(read_toml(path, "recipe"))
    if "base" not in values:
        return values
    name = values.pop("base")
    if not isinstance(name, str):
        raise ValueError(f"base must be the name or the file of a recipe, got {name!r} in {path}")
    base = _read(_find(name, path), (*extended_by, real))
    for table in (base, values):
        check_key("network", table.get("network", {}))
    network = {**base.get("network", {}), **values.get("network", {})}
    return _shorten(base, base | values | {"network": network}, values)


def _folder() -> Any:
    return files("senet.recipes")


def _line(key: str, value: Any) -> str:
    if isinstance(value, list):  # tomli_w would write one element per line
        return f"{key} = [{', '.join(map(str, value))}]"
    return tomli_w.dumps({key: value}).rstrip()


def _as_toml(value: Any) -> Any:
    if isinstance(value, PathLike):
        return str(value)
    return sorted(value) if isinstance(value, set | frozenset) else value
