"""Keys of a recipe that are about SE alone, derived from where they are defined.

A network without SE ignores or rejects them. An arm without SE omits them; a study would otherwise train the same plain
network once for each of their values.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from senet.models import plain_name
from senet.models.catalogue import INSERT_OPTIONS
from senet.recipes.recipe import Recipe

__all__ = ["SE_KEYS", "SE_OPTIONS", "has_se", "is_se_key", "se_values", "without_se"]

# Keys of the recipe's table [network]: options of `senet.insert`, and `missing`, which lets weights lack SE.
SE_OPTIONS = (*INSERT_OPTIONS, "missing")
# Keys of the recipe itself.
_DEFAULTS = {one.name: one.default for one in fields(Recipe) if one.metadata.get("se_only")}
SE_KEYS = tuple(_DEFAULTS)


def has_se(network: str) -> bool:
    """Return whether the network of a name has SE."""
    return plain_name(network) != network


def is_se_key(key: str) -> bool:
    """Return whether the key of a setting, such as "network.reduction" or "se_lr_factor", is about SE alone."""
    table, _, option = key.rpartition(".")
    return key in SE_KEYS or (table == "network" and option in SE_OPTIONS)


def se_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe that are about SE and differ from the defaults, by the keys of settings."""
    options = {f"network.{key}": value for key, value in values.get("network", {}).items() if key in SE_OPTIONS}
    return {key: values[key] for key in SE_KEYS if values.get(key, _DEFAULTS[key]) != _DEFAULTS[key]} | options


def without_se(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe without those that are about SE."""
    network = {key: value for key, value in values.get("network", {}).items() if key not in SE_OPTIONS}
    return {key: value for key, value in values.items() if key not in SE_KEYS} | {"network": network}
