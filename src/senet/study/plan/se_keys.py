"""Keys of a recipe that concern SE alone, derived from where they are defined: an arm without SE goes without them.

They change nothing in a network without SE, or are refused there; a study would otherwise train the same plain network
once for each of their values.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from senet.models.catalogue import INSERT_OPTIONS
from senet.recipes.recipe import Recipe

__all__ = ["SE_KEYS", "SE_OPTIONS", "about_se", "concerns_se", "has_se", "without_se"]

# Of the recipe's table [network]: options of `senet.insert`, and which weights a network with SE may lack.
SE_OPTIONS = (*INSERT_OPTIONS, "missing")
# Of the recipe itself.
_DEFAULTS = {one.name: one.default for one in fields(Recipe) if one.metadata.get("se_only")}
SE_KEYS = tuple(_DEFAULTS)


def has_se(network: str) -> bool:
    """Whether a network is one with SE, by its name."""
    from senet.models import plain_name

    return plain_name(network) != network


def concerns_se(key: str) -> bool:
    """Whether a key of a setting, such as "network.reduction" or "se_lr_factor", concerns SE alone."""
    table, _, option = key.rpartition(".")
    return key in SE_KEYS or (table == "network" and option in SE_OPTIONS)


def about_se(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe's values say of SE alone, other than defaults, by the keys of settings."""
    options = {f"network.{key}": value for key, value in values.get("network", {}).items() if key in SE_OPTIONS}
    return {key: values[key] for key in SE_KEYS if values.get(key, _DEFAULTS[key]) != _DEFAULTS[key]} | options


def without_se(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values, as of `dataclasses.asdict`, without those that concern SE alone."""
    network = {key: value for key, value in values.get("network", {}).items() if key not in SE_OPTIONS}
    return {key: value for key, value in values.items() if key not in SE_KEYS} | {"network": network}
