"""The metrics of a run: one line of `metrics.jsonl` for each epoch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet.tasks import Task
from senet.utils.input_files import parse_json, read_bytes, reading

__all__ = ["Epoch", "best_of", "read_epochs"]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A line of `metrics.jsonl`. The metrics are attributes as well: `epoch.top1_error`.

    Attributes:
        epoch: from 1.
        lr: learning rate of the last step.
        metrics: by the keys of the task's metrics. `train_loss` and others of training are means over the epoch's
            augmented images; the error of a mixed image is measured by the label that it had before mixing. All others
            are of the validation data after the epoch, with averaged weights if the recipe has `ema`.
        seconds: of training, without evaluation.
        images_per_second: of training.
        nonfinite_steps: steps that were skipped because their loss or gradient was not finite.

    Examples:
        >>> recipe = senet.load_recipe("digits", ["epochs=1", "batch=4", "workers=0"])
        >>> run = senet.train("se_resnet20", "photos", recipe, "runs/new")
        >>> 0 <= run.epochs[-1].top1_error <= 100
        True
    """

    epoch: int
    lr: float
    metrics: Mapping[str, float]
    seconds: float
    images_per_second: float
    nonfinite_steps: int = 0

    def __getattr__(self, name: str) -> float:
        try:
            return self.__dict__["metrics"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(f"an Epoch has no {name!r}") from None

    def as_row(self) -> dict[str, Any]:
        """Return the line of `metrics.jsonl`: all values by key, in one level."""
        before = {"epoch": self.epoch, "lr": self.lr}
        after = {key: self.__dict__[key] for key in ("seconds", "images_per_second", "nonfinite_steps")}
        return before | dict(self.metrics) | after

    @classmethod
    def from_row(cls, row: Mapping[str, Any], task: Task) -> "Epoch":
        """Return the epoch of a line of `metrics.jsonl`, or of a checkpoint.

        Raises:
            KeyError, TypeError: a value is missing or unknown.
        """
        others = dict(row)
        metrics = {metric.key: others.pop(metric.key) for metric in task.metrics}
        return cls(metrics=metrics, **others)


def best_of(epochs: Sequence[Epoch], task: Task) -> Epoch:
    """Return the epoch of the best value of the task's decisive metric, the first of several."""
    return min(epochs, key=lambda epoch: task.decisive.as_cost(epoch.metrics[task.decisive.key]))


def read_epochs(path: Path, task: Task) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl`.

    Args:
        path: of the file.
        task: of the run.

    Returns:
        The epochs, from the first without a gap; none if the file does not exist.

    Raises:
        ValueError: a line is cut off, is of another epoch than the next, or has an invalid number; the message names
            the line.
    """
    if not path.is_file():
        return []
    # As bytes, so that damage in one line is an error of that line only.
    lines = read_bytes(path, "metrics").decode("utf-8", errors="replace").splitlines()
    return [_read_line(number, line, path, task) for number, line in enumerate(lines, 1)]


def _read_line(number: int, line: str, path: Path, task: Task) -> dict[str, Any]:
    remedy = "`senet train --resume` writes the file again from the run's checkpoint"
    keys = ("epoch", *(metric.key for metric in task.validation), "seconds")  # what comparisons and reports read
    with reading(path, str(number), message="line {what} of {name} is no epoch: {reason}", remedy=remedy):
        epoch: dict[str, Any] = parse_json(line)
        finite = all(math.isfinite(epoch[key]) for key in keys)
        outside = next((m for m in task.validation if finite and not m.limits[0] <= epoch[m.key] <= m.limits[1]), None)
    if not finite or outside is not None or epoch["epoch"] != number:
        limits = "" if outside is None else ", and {} from {:g} to {:g}".format(outside.key, *outside.limits)
        raise ValueError(
            f"line {number} of {path} must be epoch {number} with finite {', '.join(keys[1:])}{limits}, "
            f"got {line[:300]!r}; {remedy}"
        )
    return epoch
