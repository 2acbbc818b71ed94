"""The metrics of a run: one line of `metrics.jsonl` for each epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet.utils.input_files import parse_json, read_bytes, reading

__all__ = ["Epoch", "best_of", "read_epochs"]

_ERRORS = ("top1_error", "top5_error")
# What comparisons and reports read of a line.
_KEYS = ("epoch", *_ERRORS, "loss", "seconds")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A line of `metrics.jsonl`.

    Attributes:
        epoch: from 1.
        lr: learning rate of the last step.
        train_loss, train_error: means over the epoch's augmented images during training, in nats and percent. The error
            of a mixed image is measured by the label that it had before mixing.
        loss, top1_error, top5_error: on the validation data after the epoch, with averaged weights if the recipe has
            `ema`; in nats and percent.
        seconds: of training, without evaluation.
        images_per_second: of training.
        nonfinite_steps: steps that were skipped because their loss or gradient was not finite.
    """

    epoch: int
    lr: float
    train_loss: float
    train_error: float
    loss: float
    top1_error: float
    top5_error: float
    seconds: float
    images_per_second: float
    nonfinite_steps: int = 0


def best_of(epochs: Sequence[Epoch]) -> Epoch:
    """Return the epoch of lowest top-1 error, the first of several."""
    return min(epochs, key=lambda epoch: epoch.top1_error)


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl`.

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
    return [_read_line(number, line, path) for number, line in enumerate(lines, 1)]


def _read_line(number: int, line: str, path: Path) -> dict[str, Any]:
    remedy = "`senet train --resume` writes the file again from the run's checkpoint"
    with reading(path, str(number), message="line {what} of {name} is no epoch: {reason}", remedy=remedy):
        epoch: dict[str, Any] = parse_json(line)
        valid = all(math.isfinite(epoch[key]) for key in _KEYS) and all(0 <= epoch[key] <= 100 for key in _ERRORS)
    if not valid or epoch["epoch"] != number:
        raise ValueError(
            f"line {number} of {path} must be epoch {number} with finite {', '.join(_KEYS[1:])}, and errors from 0 to "
            f"100, got {line[:300]!r}; {remedy}"
        )
    return epoch
