"""Read a run that has completed one epoch or more from its folder."""

from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from senet.recipes.recipe import FREE, Recipe
from senet.recipes.toml import load_recipe
from senet.runs.folder import RunFolder
from senet.runs.metrics import read_epochs
from senet.tasks import Task, get_task
from senet.utils.input_files import file_content, parse_json, reading

__all__ = ["FinishedRun", "read_run"]

_DESCRIPTION = {"network": str, "data": str, "validation": str, "parameters": int}
# Settings that do not distinguish arms: seeds are averaged over, and the others change no result.
_IGNORED = {"seed", *FREE}


@dataclass(frozen=True)
class FinishedRun:
    """A run with one epoch or more.

    Attributes:
        path: of the folder.
        network, data, validation: name of the network, and specs of the data.
        training: number of training images, and a hash of their names and labels; the path of the data is no part.
        images: the same of the validation data and of their classes.
        parameters: of the network.
        settings: the recipe, all values in force, with "network.KEY" for the options of the network.
        all_epochs: number of epochs of the complete run.
        epochs: the lines of `metrics.jsonl`.
    """

    path: Path
    network: str
    data: str
    validation: str
    training: str
    images: dict[str, Any]
    parameters: int
    settings: dict[str, Any]
    all_epochs: int
    epochs: list[dict[str, Any]]

    @property
    def task(self) -> Task:
        """What the network was trained for."""
        return get_task(self.settings["task"])

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        network = {key.removeprefix("network."): v for key, v in self.settings.items() if key.startswith("network.")}
        values = {key: value for key, value in self.settings.items() if not key.startswith("network.")}
        return Recipe(**values, network=network)

    @property
    def traits(self) -> dict[str, Any]:
        """What distinguishes the arm of this run from other arms."""
        traits = {"network": self.network, "data": self.data, "images": self.training, "parameters": self.parameters}
        return traits | {key: value for key, value in self.settings.items() if key not in _IGNORED}


def read_run(path: str | PathLike[str]) -> FinishedRun:
    """Read a run from its folder.

    Raises:
        ValueError: the folder is not a run, has no epochs yet, or has a damaged file; the message names file and line.
    """
    folder = RunFolder(Path(path))
    for file in (folder.description, folder.recipe):
        if not file.is_file():
            raise ValueError(f"{folder.path} is not a run: it has no {file.name}; give an output folder of senet train")
    with reading(folder.description, message="{name} is broken: {reason}", remedy="train the run again"):
        found = parse_json(file_content(folder.description))
        description = {key: kind(found[key]) for key, kind in _DESCRIPTION.items()} | {
            "training": "{images} ({names and labels})".format(**found["training data"]),
            "images": dict(found["validation data"]),
        }
        for data in ("training data", "validation data"):
            if type(found[data]["images"]) is not int or found[data]["images"] < 1:
                raise ValueError(f"{data}: images must be a whole number from 1 on, got {found[data]['images']!r}")
    with reading(folder.path, message="the recipe of the run {name} cannot be read: {reason}"):
        loaded = load_recipe(folder.recipe)
    recipe = asdict(loaded)
    settings = recipe | {f"network.{key}": value for key, value in recipe.pop("network").items()}
    settings.pop("network", None)
    epochs = read_epochs(folder.metrics, get_task(settings["task"]))
    if not epochs:
        raise ValueError(f"the run {folder.path} has no epochs yet; wait for its first, or leave it out")
    return FinishedRun(folder.path, **description, settings=settings, all_epochs=folder.planned(loaded), epochs=epochs)
