"""Runs beside each other: those that differ in nothing but the seed are an arm, with a mean and an interval."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.recipes.recipe import FREE
from senet.recipes.toml import load_recipe
from senet.utils.errors import unknown_name
from senet.utils.extras import install_command
from senet.utils.figures import Curve
from senet.utils.input_files import file_content, parse_json, read_bytes, reading
from senet.utils.renamed import current_key

__all__ = ["Arm", "Estimate", "FinishedRun", "compare", "estimate", "read_epochs", "read_run"]

# What comparisons and reports read of a line of `metrics.jsonl`.
_ERRORS = ("top1_error", "top5_error")
KEYS = ("epoch", *_ERRORS, "loss", "seconds")
# What an arm's runs may differ in: seeds are what it is averaged over, and the others change no result.
_SAME = {"seed", *FREE}


@dataclass(frozen=True)
class FinishedRun:
    """A run folder of `senet.train`, with one epoch or more.

    Attributes:
        path: of the folder.
        network, data, validation: the network's name, and the specs of the data.
        training: what tells the training data, wherever they lie: their number, and a hash of names and labels.
        images: the same of the validation data, and of their classes.
        parameters: of the network.
        settings: the recipe, every value in force, with "network.KEY" for the options of the network.
        epochs: as in `metrics.jsonl`.
    """

    path: Path
    network: str
    data: str
    validation: str
    training: str
    images: dict[str, Any]
    parameters: int
    settings: dict[str, Any]
    epochs: list[dict[str, Any]]

    @property
    def traits(self) -> dict[str, Any]:
        """All that tells the arm of a run from others."""
        what = {"network": self.network, "data": self.data, "images": self.training, "parameters": self.parameters}
        return what | {key: value for key, value in self.settings.items() if key not in _SAME}


@dataclass(frozen=True)
class Estimate:
    """Means over seeds, and half the width of their 95 % t intervals; NaN where there is one seed alone."""

    mean: NDArray[np.float64]
    half: NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seeds.

    Attributes:
        label: what tells the arm from the others.
        runs: by seed.
    """

    label: str
    runs: list[FinishedRun]

    @property
    def epochs(self) -> int:
        """Epochs that all of its runs have."""
        return min(len(run.epochs) for run in self.runs)

    def values(self, key: str) -> NDArray[np.float64]:
        """A figure of `metrics.jsonl`, of (runs, epochs that all of them have)."""
        return np.array([[epoch[key] for epoch in run.epochs[: self.epochs]] for run in self.runs], dtype=np.float64)

    @property
    def last(self) -> Estimate:
        """Top-1 error in percent after the last epoch."""
        return estimate(self.values("top1_error")[:, -1])

    @property
    def best(self) -> Estimate:
        """The least top-1 error of each run: too low, since it is selected on the data that it is measured on."""
        return estimate(self.values("top1_error").min(1))

    @property
    def seconds(self) -> float:
        """Of training an epoch, the median."""
        return float(np.median(self.values("seconds")))

    def curve(self, key: str) -> Curve:
        """A figure by epoch, to draw."""
        values = self.values(key)
        found = estimate(values)
        band = None if len(values) == 1 else (found.mean - found.half, found.mean + found.half)
        return Curve(found.mean, band, values)


def compare(paths: Sequence[str | PathLike[str]], by: Sequence[str] = ()) -> list[Arm]:
    """Read runs, and put those that differ in nothing but the seed into one arm.

    Args:
        paths: output folders of `senet.train`, with the same validation data.
        by: what the arms are called by: network, data, or keys of the recipe such as "lr" and "network.reduction"; the
            network and everything else that differs unless given.

    Returns:
        The arms, in the order in which their first runs are given.

    Raises:
        ValueError: no runs, the same twice, a folder that is no run or has no epochs, other validation data, or a key
            of `by` that is unknown or does not tell the arms apart.
    """
    if not paths:
        raise ValueError("there are no runs to compare; give output folders of senet train")
    runs: dict[Path, FinishedRun] = {}
    for path in map(Path, paths):
        if path.resolve() in runs:
            raise ValueError(f"the run {path} is given twice; give each once")
        runs[path.resolve()] = read_run(path)
    first, *others = runs.values()
    by = [current_key(key) for key in by]
    for run in others:
        if run.images != first.images:
            what = [f"{r.validation!r} ({r.images.get('images')} images)" for r in (first, run)]
            raise ValueError(
                f"errors on different data cannot be compared: {first.path} has the validation data {what[0]}, and "
                f"{run.path} {what[1]}, not the same images; give runs of one of them"
            )
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs.values():
        groups.setdefault(json.dumps(run.traits, sort_keys=True, default=str), []).append(run)
    arms = [sorted(group, key=lambda run: run.settings["seed"]) for group in groups.values()]
    for arm in arms:
        for one, two in pairwise(arm):
            if one.settings["seed"] == two.settings["seed"]:
                raise ValueError(
                    f"{one.path} and {two.path} are the same run of seed {one.settings['seed']}, which is no second "
                    f"sample; leave one out, or train with another seed"
                )
    return [Arm(label, arm) for label, arm in zip(_labels([arm[0].traits for arm in arms], by), arms, strict=True)]


def read_run(path: str | PathLike[str]) -> FinishedRun:
    """Read a run folder.

    Raises:
        ValueError: it is none, has no epochs yet, or a file in it is broken; the message names the file and line.
    """
    path = Path(path)
    for name in ("run.json", "recipe.toml"):
        if not (path / name).is_file():
            raise ValueError(f"{path} is no run: it has no {name}; give an output folder of senet train")
    with reading(path / "run.json", message="{name} is broken: {reason}", remedy="train the run again"):
        about = parse_json(file_content(path / "run.json"))
        what = {key: kind(about[key]) for key, kind in _ABOUT.items()} | {
            "training": "{images} ({names and labels})".format(**about["training data"]),
            "images": dict(about["validation data"]),
        }
        for data in ("training data", "validation data"):
            if type(about[data]["images"]) is not int or about[data]["images"] < 1:
                raise ValueError(f"{data}: images must be a whole number from 1 on, got {about[data]['images']!r}")
    with reading(path, message="the recipe of the run {name} cannot be read: {reason}"):
        recipe = asdict(load_recipe(path / "recipe.toml"))
    settings = recipe | {f"network.{key}": value for key, value in recipe.pop("network").items()}
    settings.pop("network", None)
    epochs = read_epochs(path / "metrics.jsonl")
    if not epochs:
        raise ValueError(f"the run {path} has no epochs yet; wait for its first, or leave it out")
    return FinishedRun(path, **what, settings=settings, epochs=epochs)


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """The epochs of a `metrics.jsonl`, from the first on without a gap; none where there is no such file.

    Raises:
        ValueError: a line is cut off, of another epoch than is due, or has an error that can be none; the message names
            it.
    """
    if not path.is_file():
        return []
    # In bytes, so that what is damaged in one line is that line's error alone.
    lines = read_bytes(path, "metrics").decode("utf-8", errors="replace").splitlines()
    return [_epoch(number, line, path) for number, line in enumerate(lines, 1)]


def estimate(values: NDArray[np.float64]) -> Estimate:
    """The mean over seeds, the first dimension, with its 95 % t interval.

    Raises:
        ValueError: there are two seeds or more, and no scipy.
    """
    seeds = len(values)
    mean = values.mean(0)
    if seeds == 1:
        return Estimate(mean, np.full_like(mean, np.nan))
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ValueError(f"intervals over seeds need scipy: {install_command('report')}") from error
    return Estimate(mean, t.ppf(0.975, seeds - 1) * values.std(0, ddof=1) / math.sqrt(seeds))


_ABOUT = {"network": str, "data": str, "validation": str, "parameters": int}


def _epoch(number: int, line: str, path: Path) -> dict[str, Any]:
    """A line of `metrics.jsonl`, which holds all that is read of it, and is of the epoch that is due."""
    remedy = "`senet train --resume` writes the file anew from the run's checkpoint"
    with reading(path, str(number), message="line {what} of {name} is no epoch: {reason}", remedy=remedy):
        epoch: dict[str, Any] = parse_json(line)
        sound = all(math.isfinite(epoch[key]) for key in KEYS) and all(0 <= epoch[key] <= 100 for key in _ERRORS)
    if not sound or epoch["epoch"] != number:
        raise ValueError(
            f"line {number} of {path} is to be epoch {number} with finite {', '.join(KEYS[1:])}, and errors from 0 to "
            f"100, got {line[:300]!r}; {remedy}"
        )
    return epoch


def _labels(arms: list[dict[str, Any]], by: Sequence[str]) -> list[str]:
    """What to call each arm by its traits: the network, and what differs as KEY=VALUE."""
    known = list(dict.fromkeys(key for arm in arms for key in arm))
    for key in by:
        if key not in known:
            raise ValueError(unknown_name("key", key, known))
    differing = [key for key in known if len({str(arm.get(key)) for arm in arms}) > 1]
    # Networks of one name and options differ in size only where one was given built.
    named = set(differing) - {"network", "parameters"}
    keys = list(by) or ["network", *(key for key in differing if key in named)]
    labels = [_label(arm, keys) for arm in arms]
    if not by and len(set(labels)) < len(labels):
        labels = [_label(arm, [*keys, "parameters"]) for arm in arms]
    for index, label in enumerate(labels):
        if label in labels[:index]:
            other = arms[labels.index(label)]
            missing = [key for key in differing if arms[index].get(key) != other.get(key)]
            raise ValueError(f"two arms are both called {label!r}, and differ in {missing[0]}: add --by {missing[0]}")
    return labels


def _label(arm: dict[str, Any], keys: list[str]) -> str:
    options = [f"{key.removeprefix('network.')}={_text(arm[key])}" for key in keys if key in arm and key != "network"]
    parts = [arm["network"], *options] if "network" in keys else options
    return " ".join(parts) or "default"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
