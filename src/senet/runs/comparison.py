"""Compare runs: those that differ only in the seed are an arm, with means and confidence intervals."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.runs.finished import FinishedRun, read_run
from senet.tasks import Task
from senet.utils.errors import unknown_name
from senet.utils.extras import optional_import
from senet.utils.figures import Curve
from senet.utils.renamed import current_key

__all__ = ["Arm", "Estimate", "compare", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """Means over seeds with their 95 % t intervals.

    Attributes:
        mean: over the first dimension of the values.
        half: half the width of the interval; NaN for a single seed.
    """

    mean: NDArray[np.float64]
    half: NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """Runs that differ only in the seed.

    Attributes:
        label: what distinguishes the arm from the others.
        runs: by seed.

    Examples:
        >>> from senet.runs import compare
        >>> arm = compare(["runs/se"])[0]
        >>> arm.epochs, arm.values("top1_error").shape  # (runs, epochs)
        (1, (1, 1))
    """

    label: str
    runs: list[FinishedRun]

    @property
    def task(self) -> Task:
        """What the networks were trained for."""
        return self.runs[0].task

    @property
    def epochs(self) -> int:
        """Number of epochs that all runs have."""
        return min(len(run.epochs) for run in self.runs)

    def values(self, key: str) -> NDArray[np.float64]:
        """Return a metric of `metrics.jsonl`: (runs, epochs)."""
        return np.array([[epoch[key] for epoch in run.epochs[: self.epochs]] for run in self.runs], dtype=np.float64)

    @property
    def last(self) -> Estimate:
        """The task's decisive metric after the last epoch."""
        return estimate(self.values(self.task.decisive.key)[:, -1])

    @property
    def best(self) -> Estimate:
        """Best value of that metric in each run: too good, since the same data select the epoch and measure it."""
        decisive = self.task.decisive
        values = self.values(decisive.key)
        return estimate(values.min(1) if decisive.better == "lower" else values.max(1))

    @property
    def seconds(self) -> float:
        """Median training time of an epoch."""
        return float(np.median(self.values("seconds")))

    def curve(self, key: str) -> Curve:
        """Return a metric by epoch, to draw."""
        values = self.values(key)
        found = estimate(values)
        band = None if len(values) == 1 else (found.mean - found.half, found.mean + found.half)
        return Curve(found.mean, band, values)


def compare(paths: Sequence[str | PathLike[str]], by: Sequence[str] = ()) -> list[Arm]:
    """Read runs, and group those that differ only in the seed into arms.

    Args:
        paths: output folders of `senet.train`, with the same validation data.
        by: keys that label the arms: network, data, or keys of the recipe such as "lr" and "network.reduction". By
            default the network, and everything else that differs.

    Returns:
        The arms, in the order of their first runs.

    Raises:
        ValueError: no runs, the same run twice, a folder that is not a run or has no epochs, another task, other
            validation data, or a key of `by` that is unknown or does not distinguish the arms.

    Examples:
        >>> from senet.runs import compare
        >>> arms = compare(["runs/plain", "runs/se"])
        >>> [(arm.label, len(arm.runs)) for arm in arms]
        [('resnet20', 1), ('se_resnet20', 1)]
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
        if run.task is not first.task:
            raise ValueError(
                f"metrics of different tasks cannot be compared: {first.path} is a run of {first.task.name}, and "
                f"{run.path} of {run.task.name}; give runs of one task"
            )
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


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Return the mean over seeds with its 95 % t interval.

    Args:
        values: (seeds, ...).

    Raises:
        ValueError: scipy is not installed, and there are two seeds or more.
    """
    seeds = len(values)
    mean = values.mean(0)
    if seeds == 1:
        return Estimate(mean, np.full_like(mean, np.nan))
    with optional_import("report", "intervals over seeds need SciPy"):
        from scipy.stats import t
    return Estimate(mean, t.ppf(0.975, seeds - 1) * values.std(0, ddof=1) / math.sqrt(seeds))


def _labels(arms: list[dict[str, Any]], by: Sequence[str]) -> list[str]:
    """Return a label for each arm, given its traits: the network, and what differs as KEY=VALUE."""
    known = list(dict.fromkeys(key for arm in arms for key in arm))
    for key in by:
        if key not in known:
            raise ValueError(unknown_name("key", key, known))
    differing = [key for key in known if len({str(arm.get(key)) for arm in arms}) > 1]
    # Networks of equal name and options differ in size only if one was passed as a module.
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
