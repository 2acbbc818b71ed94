"""Which runs measure a row of the paper, and in what they differ from the paper's experiment."""

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from senet.insertion.insert import insert
from senet.paper import Entry
from senet.recipes.recipe import FREE
from senet.recipes.toml import load_recipe
from senet.runs.comparison import estimate
from senet.runs.finished import FinishedRun
from senet.study.data_sets import DATA_SETS, data_set_of, training_images
from senet.study.report.tables import training_length
from senet.study.reproduction.commands import RowCommands, trained_network
from senet.study.reproduction.rows import Measured

__all__ = ["describe_data", "describe_images", "describe_network", "group_by_seed", "is_of_row", "measure"]

_SE_OPTIONS = ("placement", "reduction", "squeeze", "gate", "bias", "stages", "at")
_SECOND = {"top5_error": "top-5", "ap": "AP"}
# Deviations that are listed one by one.
_MOST_DEVIATIONS = 4


def is_of_row(run: FinishedRun, entry: Entry) -> bool:
    """Return whether network, SE options and data set of a run are a row's; in Tables 8 and 9, image sizes too."""
    if trained_network(entry) != run.network or entry.table not in DATA_SETS or entry.table == "release":
        return False
    if data_set_of(run) is not DATA_SETS[entry.table]:
        return False
    if entry.table == "8" and (entry.size, run.settings["crop_size"]) != (224, 224):
        return False  # errors on larger crops are measured by senet evaluate, and are in no run
    if entry.table == "9" and run.settings["crop_size"] != entry.size:
        return False
    return _varied_se_options(run.recipe.network) == _varied_se_options(entry.options)


def group_by_seed(runs: Iterable[FinishedRun]) -> list[list[FinishedRun]]:
    """Return groups of runs that differ in the seed alone. A copy of a run does not count twice."""
    groups: dict[str, dict[int, FinishedRun]] = {}
    for run in runs:
        traits = json.dumps([run.traits, run.images], sort_keys=True, default=str)
        groups.setdefault(traits, {}).setdefault(run.settings["seed"], run)
    return [[group[seed] for seed in sorted(group)] for group in groups.values()]


def measure(runs: list[FinishedRun], entry: Entry, commands: RowCommands | None) -> Measured:
    """Return the result of runs that differ in the seed alone.

    Args:
        runs: a group of `group_by_seed`.
        entry: the row that they measure.
        commands: the commands of that row.
    """
    last = [run.epochs[-1] for run in runs]
    first, second = measured_metrics(entry)
    found = estimate(np.array([epoch[first] for epoch in last]))
    return Measured(
        runs=tuple(str(run.path) for run in runs),
        seeds=tuple(run.settings["seed"] for run in runs),
        mean=float(found.mean),
        half=None if len(runs) == 1 else float(found.half),
        top5=float(np.mean([epoch[second] for epoch in last])),
        second=_SECOND[second],
        where=describe_data(runs[0]),
        deviations=tuple(_deviations(runs[0], entry, commands)),
    )


def measured_metrics(entry: Entry) -> tuple[str, str]:
    """Return the keys of the two metrics of a row, in the paper's order."""
    return ("top1_error", "top5_error") if entry.precision is None else ("ap50", "ap")


def describe_network(run: FinishedRun) -> str:
    """Return a run's network with its SE options, in words."""
    options = " ".join(f"{key}={value}" for key, value in _varied_se_options(run.recipe.network).items())
    return f"{run.network} {options}".strip()


def describe_data(run: FinishedRun) -> str:
    """Return a run's data set, images and epochs, in words."""
    known = data_set_of(run)
    name = run.data if known is None else known.name
    length = training_length({key: [run.settings[key]] for key in ("epochs", "iterations") if run.settings[key]})
    return describe_images(name, training_images(run), run.images.get("images"), length)


def describe_images(name: str, training: int, validation: Any, length: str) -> str:
    """Return a data set, its numbers of images, and the length of training, in words."""
    return f"{name} ({training:,} training and {validation:,} validation images), {length}"


def _varied_se_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of SE that differ from the defaults of `senet.insert`."""
    defaults = {name: one.default for name, one in inspect.signature(insert).parameters.items()}
    return {key: value for key, value in options.items() if key in _SE_OPTIONS and value != defaults[key]}


def _deviations(run: FinishedRun, entry: Entry, commands: RowCommands | None) -> Iterator[str]:
    """Yield in what a run differs from the paper's experiment, as far as data and recipe show it."""
    known = DATA_SETS[entry.table]
    for what, count, paper in (
        ("training", training_images(run), known.training),
        ("validation", int(run.images["images"]), known.validation),
    ):
        if count != paper:
            yield f"{count:,} {what} images instead of {paper:,}"
    if commands is None or not commands.recipe:
        return
    recipe = asdict(load_recipe(commands.recipe, commands.settings))
    expected = recipe | {f"network.{key}": value for key, value in recipe.pop("network").items()}
    expected.pop("network", None)
    expected |= {f"network.{key}": value for key, value in entry.options.items()}
    # A file of weights has another path here.
    options = (*_SE_OPTIONS, "num_classes", "in_channels", "backbone_weights")
    skipped = {"seed", *FREE, *(f"network.{key}" for key in options)}
    if entry.table == "7" and not run.settings.get("network.backbone_weights"):
        yield "a backbone without pretrained weights"
    differing = [
        f"{key} = {run.settings.get(key, 'none')} instead of {expected.get(key, 'none')}"
        for key in expected.keys() | run.settings.keys()
        if key not in skipped and run.settings.get(key) != expected.get(key)
    ]
    differing.sort(key=lambda text: (not text.startswith("epochs"), text))
    yield from differing[:_MOST_DEVIATIONS]
    if len(differing) > _MOST_DEVIATIONS:
        yield f"and {len(differing) - _MOST_DEVIATIONS} more settings"
    if commands.limitation:
        yield f"without {commands.limitation.partition(',')[0]}"
