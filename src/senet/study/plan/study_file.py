"""Study files: a TOML grid, in which every value of one key is combined with every value of the others.

    title = "reduction and learning rate"      # what varies; the file's name unless given
    baseline = "resnet20-lr-0.1"               # name of the arm that all others are compared to; see below

    [grid]
    network = ["resnet20", "se_resnet20"]      # names of networks; --network unless given
    reduction = [4, 16]                        # options of `senet.insert`: placement, reduction, squeeze, gate, ...
    se_lr_factor = [1.0, 10.0]                 # keys of a recipe that are about SE: this one and train_only
    lr = [0.1, 0.05]                           # any other key of a recipe except the seed
    "network.drop_path_rate" = [0.0, 0.1]      # any other option of the network, in quotes

A single value needs no brackets. Keys about SE do not multiply a network without SE, which has one arm for all of their
values. Arms with SE are compared to that arm of the same network and recipe, unless the file names a baseline. Without
either, all arms are compared to the first.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from senet.models import plain_name
from senet.recipes.recipe import Recipe, check_key
from senet.study.plan.plan import key_of
from senet.study.plan.se_keys import SE_OPTIONS, has_se, is_se_key
from senet.study.plan.study import Study, StudyArm
from senet.utils.errors import unknown_name
from senet.utils.input_files import read_toml, reading
from senet.utils.renamed import RENAMED_OPTIONS, current_key

__all__ = ["read_study"]

_KEYS = ("title", "baseline", "grid")
# Each arm has a run for every seed, and is built once before the first run.
MOST_ARMS = 1000


def read_study(path: str | PathLike[str], network: str | None = None) -> Study:
    """Read a study file, see above.

    Args:
        path: ends in `.toml`.
        network: for a grid without `network`.

    Raises:
        ValueError: no such file, no TOML, an unknown key or network (the message suggests the nearest name), an invalid
            value, no network, a network given twice, or a baseline that is no arm.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no study file at {path}")
    values = read_toml(path, "study")
    for key in values:
        if key not in _KEYS:
            raise ValueError(f"{path}: {unknown_name('key', key, _KEYS)}")
    with reading(path, message="{name}: {reason}"):
        choices = _grid(values.get("grid"), network)
        arms = _arms(choices)
    title, baseline = values.get("title", path.stem), values.get("baseline")
    if not isinstance(title, str):
        raise ValueError(f"{path}: title must be text, got {title!r}")
    study = Study(path.stem, title, "", arms, "", notes=tuple(_notes(choices)))
    if baseline is None:
        return study
    with reading(path, message="{name}: baseline: {reason}"):
        return replace(study, baseline=study.arm(baseline).name)


def _grid(grid: Any, network: str | None) -> dict[str, list[Any]]:
    """Return the values of each key of a grid, networks first."""
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError("the table [grid] is missing: expected keys with values, such as reduction = [4, 16]")
    choices: dict[str, list[Any]] = {}
    for key, value in grid.items():
        name = _key(key, value)
        if name in choices:
            raise ValueError(f"{name} is in the grid twice, under two names; leave one out")
        choices[name] = value if isinstance(value, list) else [value]
    if network is not None and "network" in choices:
        raise ValueError(f"the grid names its networks; leave out --network {network}, or `network` of the grid")
    networks = choices.pop("network", None) or ([network] if network else [])
    if not networks:
        raise ValueError("no network: give --network NAME, or network = [...] in the grid")
    for name in networks:
        if not isinstance(name, str):
            raise ValueError(f"network must be a list of names of networks, got {name!r}")
        plain_name(name)
    for key, values in choices.items():
        if not values:
            raise ValueError(f"{key} has no values")
        _check_values(key, values)
        if len({json.dumps(_number(value)) for value in values}) < len(values):  # 4 and 4.0 are the same
            raise ValueError(f"{key} has a value twice: {values}")
    whole = {"network": networks, **choices}
    count = math.prod(map(len, whole.values()))
    if count > MOST_ARMS:
        raise ValueError(f"the grid has {count:,} combinations, the maximum is {MOST_ARMS:,} arms; leave out values")
    return whole


def _key(key: str, value: Any) -> str:
    """Return a key as settings have it: "network.reduction", "lr"."""
    key = RENAMED_OPTIONS.get(key, current_key(key))
    known = [name for name in Recipe.__dataclass_fields__ if name not in ("seed", "network")]
    if key == "network" and isinstance(value, Mapping):
        first = next(iter(value), "drop_rate")
        raise ValueError(f'a grid has options of the network in quotes: "network.{first}" = [...]')
    if key == "seed":
        raise ValueError("a grid has no seeds: give --seeds N, with which every arm is run")
    if key in SE_OPTIONS:
        return f"network.{key}"
    if key in ("network", *known) or key.startswith("network."):
        return key
    raise ValueError(unknown_name("key", key, ["network", *SE_OPTIONS, *known]))


def _check_values(key: str, values: list[Any]) -> None:
    """Check that a key takes its values.

    Raises:
        ValueError: one has a type that the key or TOML does not take.
    """
    for value in values:
        if not all(isinstance(one, str | int | float) for one in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{key} must be text, a number, true, false, or a list of these, got {value!r}")
        if any(isinstance(one, int) and abs(one) >= 2**63 for one in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{key} must be a number of at most 64 bits, as in TOML, got {str(value)[:40]}...")
        if not key.startswith("network."):
            check_key(key, value)


def _arms(choices: dict[str, list[Any]]) -> tuple[StudyArm, ...]:
    """Return an arm for every combination; a network without SE has one arm for all values about SE."""
    varying = [key for key, values in choices.items() if len(values) > 1]
    found: dict[str, StudyArm] = {}
    combinations = itertools.product(*choices.values())
    arms = (_arm(dict(zip(choices, combination, strict=True)), varying) for combination in combinations)
    for arm in dict.fromkeys(arms):
        number, name = 1, arm.name
        while arm.name in found:  # two values that make the same folder name
            number += 1
            arm = replace(arm, name=f"{name}-{number}")
        found[arm.name] = arm
    return tuple(_with_baselines(list(found.values())))


def _notes(choices: dict[str, list[Any]]) -> Iterator[str]:
    """Yield a note for each key of a grid that has no effect."""
    if not any(map(has_se, choices["network"])):
        for key in filter(is_se_key, choices):
            yield f"{key} is ignored: it is about SE, and no network of the grid has SE"


def _arm(values: dict[str, Any], varying: list[str]) -> StudyArm:
    """Return the arm of a combination, named after the network and the values that vary."""
    network = values.pop("network")
    if not has_se(network):
        values = {key: value for key, value in values.items() if not is_se_key(key)}
    settings = tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    varied = [f"{key.removeprefix('network.')}={_text(value)}" for key, value in values.items() if key in varying]
    label = " ".join([network, *varied])
    return StudyArm(re.sub(r"[^\w.]+", "-", label.replace("/", "-")).strip("-"), label, network, settings)


def _with_baselines(arms: list[StudyArm]) -> Iterator[StudyArm]:
    """Yield each arm with SE with `against` set to the plain network by the same recipe, where there is one."""

    def recipe(arm: StudyArm) -> tuple[str, ...]:
        return tuple(setting for setting in arm.settings if not is_se_key(key_of(setting)))

    plain = {(arm.network, recipe(arm)): arm.name for arm in arms if not has_se(arm.network)}
    for arm in arms:
        twin = plain.get((plain_name(arm.network), recipe(arm)), "")
        yield arm if twin == arm.name else replace(arm, against=twin)


def _number(value: Any) -> Any:
    """Return a value with its whole numbers as floats."""
    if isinstance(value, list):
        return [_number(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
