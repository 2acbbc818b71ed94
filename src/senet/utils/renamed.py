"""Names of version 0.1: accepted in files and settings; as arguments an error, see `senet.utils.keywords`.

Files of version 0.1 (recipes, studies, plans, checkpoints, reports) may have the old names; senet writes new ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from senet.utils.errors import shown

__all__ = [
    "RENAMED_ARGUMENTS",
    "RENAMED_KEYS",
    "RENAMED_OPTIONS",
    "current_key",
    "current_recipe",
    "current_settings",
    "rename",
]

# Old name: new name.
RENAMED_KEYS = {"optimiser": "optimizer", "drops": "milestones", "lr_batch": "base_batch_size"}
# Options of `senet.insert`, which the table [network] of a recipe also has.
RENAMED_OPTIONS = {"start": "init"}
# Arguments of functions that show progress.
RENAMED_ARGUMENTS = {"track": "progress"}


def rename(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values with old keys replaced by new ones.

    Args:
        values: values by old or new keys.
        names: {old name: new name}.

    Raises:
        ValueError: a value is given under both names.
    """
    _refuse_both(values, names)
    return {names.get(key, key): value for key, value in values.items()}


def current_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe, and of its table `network`, under the current names.

    Raises:
        ValueError: a value is given under both names.
    """
    found = rename(values, RENAMED_KEYS)
    if isinstance(found.get("network"), Mapping):
        found["network"] = rename(found["network"], RENAMED_OPTIONS)
    return found


def current_key(key: str) -> str:
    """Return the current name of a key of settings, such as "lr" or "network.init"."""
    return _SETTINGS.get(key, key)


def current_settings(settings: Iterable[str]) -> list[str]:
    """Return settings "KEY=VALUE" under the current names of their keys.

    Raises:
        ValueError: a setting is not text, or a key is set under both names.
    """
    pairs = [_text(setting).partition("=") for setting in settings]
    _refuse_both([key.strip() for key, _, _ in pairs], _SETTINGS)
    return ["".join((current_key(key.strip()), *rest)) if rest[0] else key for key, *rest in pairs]


def _text(setting: object) -> str:
    if not isinstance(setting, str):
        raise ValueError(f"a setting must be text, got {shown(setting)}")
    return setting


def _refuse_both(keys: Sequence[str] | Mapping[str, Any], names: Mapping[str, str]) -> None:
    for old, new in names.items():
        if old in keys and new in keys:
            raise ValueError(f"{old} and {new} are two names of one key ({old} is the old name): leave {old} out")


_SETTINGS = {**RENAMED_KEYS, **{f"network.{old}": f"network.{new}" for old, new in RENAMED_OPTIONS.items()}}
