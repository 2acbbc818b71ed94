"""Recipes as TOML: read by name or from a file, changed by settings, written with what each key means."""

import os
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import tomli_w

from senet.recipes.recipe import Recipe, build_recipe, check_key
from senet.utils.errors import FileError, unknown_name
from senet.utils.files import atomic_path
from senet.utils.input_files import check_numbers, read_text, read_toml, reading
from senet.utils.renamed import current_recipe, current_settings

__all__ = ["apply_settings", "list_recipes", "load_recipe", "recipe_heading", "recipe_text", "write_recipe"]


# Keys that are numbers of epochs, and how they follow fewer epochs. Exact where they can be, and a drop of the
# learning rate never at the start.
_IN_EPOCHS: dict[str, Callable[[Any, int, int], Any]] = {
    "warmup": lambda value, epochs, before: value * epochs / before,
    "milestones": lambda value, epochs, before: [-(-drop * epochs // before) for drop in value],
    "freeze_bn_epochs": lambda value, epochs, before: value * epochs // before,
}


def list_recipes() -> list[str]:
    """Names of the recipes that senet has."""
    return sorted(p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name.endswith(".toml"))


def load_recipe(
    recipe: str | PathLike[str], settings: Sequence[str] = (), *, note: Callable[[str], None] = lambda line: None
) -> Recipe:
    """Read a recipe by its name or from a TOML file, and change some of its values.

    Where epochs are set to fewer than the recipe's, its warmup, milestones and freeze_bn_epochs are shortened in
    proportion, unless they are set as well.

    Args:
        recipe: a name of `list_recipes`, or a path that ends in `.toml`. A file may start from another recipe:
            `base = "cifar"`, or `base = "mine.toml"`, beside it.
        settings: "KEY=VALUE", VALUE in TOML's syntax, or a bare word for text; "network.KEY=VALUE" is an option of
            the network.
        note: is given a line for each value that is shortened.

    Raises:
        ValueError: no such recipe, a file that is no TOML, an unknown key (the message names the nearest one), or a
            value that is invalid; the message names the file.
    """
    below, settings = _read(_find(recipe)), current_settings(settings)
    values = _shortened(below, apply_settings(below, settings), _keys(settings), note)
    try:
        return build_recipe(values)
    except ValueError as error:
        if not str(recipe).endswith(".toml"):  # of a recipe that senet has, whatever is wrong is in the settings
            raise
        given = "".join(f" --set {setting}" for setting in settings)
        raise ValueError(f"the recipe {recipe}{given and f' with{given}'}: {error}") from error


def _keys(settings: Sequence[str]) -> set[str]:
    return {setting.partition("=")[0].strip() for setting in settings}


def _shortened(
    below: Mapping[str, Any],
    values: dict[str, Any],
    given: Iterable[str],
    note: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Shorten what a recipe measures in epochs, where it is given fewer of them.

    Args:
        below: values before epochs were changed.
        values: values after that.
        given: keys that were changed along with epochs, and stay.
        note: is given a line for each value that is shortened.
    """
    before, epochs = below.get("epochs"), values.get("epochs")
    if not (type(before) is type(epochs) is int and 0 < epochs < before):
        return values
    for key, shorten in _IN_EPOCHS.items():
        old = below.get(key)
        if key not in given and old:
            check_key(key, old)
            values[key] = new = shorten(old, epochs, before)
            if new != old:
                note(f"epochs={epochs} of {before}: {key} is shortened in proportion, {old} -> {new}")
    return values


def apply_settings(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Values with settings "KEY=VALUE" applied, see `load_recipe`.

    Raises:
        ValueError: a setting without "=", or of a table that a recipe does not have, or `network` is no table.
    """
    values = dict(values)
    for setting in current_settings(settings):
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ValueError(f"--set {setting!r} is to read KEY=VALUE, such as epochs=30 or network.reduction=8")
        table, dot, option = key.partition(".")
        with reading(key, error=FileError, message="invalid --set {name}=...: {reason}"):
            value = _value(text)
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
    """All values in force as TOML that `load_recipe` reads, each under a comment that says what it is.

    Args:
        recipe: the recipe.
        heading: lines on top, as comments.
    """
    meanings = _meanings()
    # A folder's name may hold what TOML or UTF-8 cannot.
    lines = [
        f"# {''.join(c if c.isprintable() else repr(c)[1:-1] for c in line)}".rstrip() for line in heading.split("\n")
    ]
    lines = lines if heading else []
    for key, value in asdict(recipe).items():
        if key == "network":
            continue
        lines += ["", *textwrap.wrap(meanings[key], 116, initial_indent="# ", subsequent_indent="#   ")]
        lines.append(_line(key, value))
    # What Python can say and TOML cannot: None is what an option is without it.
    network = {key: _as_toml(value) for key, value in recipe.network.items() if value is not None}
    if network:
        lines += ["", f"# {meanings['network']}", tomli_w.dumps({"network": network}).rstrip()]
    return "\n".join(lines).lstrip("\n") + "\n"


def write_recipe(recipe: Recipe, path: str | PathLike[str], **beside: Any) -> None:
    """Write all values in force, see `recipe_text`; `beside` goes into comments on top."""
    heading = "\n".join(f"{key} = {value}" for key, value in beside.items())
    with atomic_path(path) as temporary:
        temporary.write_text(recipe_text(recipe, heading), encoding="utf-8")


def recipe_heading(recipe: str | PathLike[str]) -> str:
    """The comments on top of a recipe's file: what it is, and where its numbers are from.

    Raises:
        ValueError: no such recipe.
    """
    lines = read_text(_find(recipe), "recipe").split("\n")
    above = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:above])


def _find(recipe: str | PathLike[str], beside: Any = None) -> Any:
    """The file of a recipe by name or path; a path is relative to the file that names it, if one does."""
    if str(recipe).endswith(".toml"):
        path = Path(recipe) if beside is None else Path(beside).parent / recipe
        if not path.is_file():
            raise ValueError(f"no recipe file at {path}")
        return path
    path = _folder() / f"{recipe}.toml"
    if not path.is_file():
        raise ValueError(f"{unknown_name('recipe', str(recipe), list_recipes())} Or a path that ends in .toml.")
    return path


def _read(path: Any, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a file, with those of its base under them."""
    real = os.path.realpath(str(path))
    if real in above:
        raise ValueError(f"the recipe {path} is its own base, by way of {', '.join(above)}; take one base out")
    values = current_recipe(read_toml(path, "recipe"))
    if "base" not in values:
        return values
    name = values.pop("base")
    if not isinstance(name, str):
        raise ValueError(f"base must be the name of a recipe, or its file, got {name!r} in {path}")
    base = _read(_find(name, path), (*above, real))
    for table in (base, values):
        check_key("network", table.get("network", {}))
    return _shortened(
        base, base | values | {"network": {**base.get("network", {}), **values.get("network", {})}}, values
    )


def _folder() -> Any:
    return files("senet.recipes")


def _meanings() -> dict[str, str]:
    """What each key of a recipe is, by the metadata of its field."""
    return {one.name: one.metadata["help"] for one in fields(Recipe)}


def _line(key: str, value: Any) -> str:
    if isinstance(value, list):  # which tomli_w spreads over lines
        return f"{key} = [{', '.join(map(str, value))}]"
    return tomli_w.dumps({key: value}).rstrip()


def _as_toml(value: Any) -> Any:
    if isinstance(value, PathLike):
        return str(value)
    return sorted(value) if isinstance(value, set | frozenset) else value


def _value(text: str) -> Any:
    try:
        values = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    check_numbers(values)
    return values["value"]
