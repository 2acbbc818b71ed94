"""The result of a run, and the interface through which it reports its progress."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import nn

from senet.data import Loader
from senet.recipes.recipe import Recipe
from senet.runs.metrics import Epoch, best_of

__all__ = ["Reporter", "Run", "Silent", "describe_position"]


@dataclass(frozen=True)
class Run:
    """The result of a run.

    Attributes:
        output: folder of the run.
        epochs: completed epochs, including those before the run was resumed.
        signal: number of the signal that ended the run early, or None.
        step: completed steps of the next epoch.
        skipped: names of images that could not be read.
        seconds: time by kind of work, since the run was started or resumed.
    """

    output: Path
    epochs: list[Epoch]
    signal: int | None = None
    step: int = 0
    skipped: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run early."""
        return self.signal is not None

    @property
    def best(self) -> Epoch | None:
        """The epoch of lowest top-1 error, the first of several."""
        return best_of(self.epochs) if self.epochs else None


def describe_position(epochs: int, steps: int) -> str:
    """Return completed epochs, and steps after them, in words: "2 epochs and 1 step"."""
    words = [f"{n} {unit}{'s' if n != 1 else ''}" for n, unit in ((epochs, "epoch"), (steps, "step"))]
    return " and ".join(words) if steps else words[0]


class Reporter(Protocol):
    """Shows the progress of a run; `Silent` shows nothing."""

    def progress(self, steps: Iterable[int], total: int, description: str, /) -> Iterable[int]:
        """Show progress of work other than training steps: decoding, evaluation. See `senet.utils.progress`."""
        ...

    def note(self, text: str) -> None:
        """Show a line that the user should know, such as where a run resumes."""
        ...

    def start(
        self, model: nn.Module, recipe: Recipe, training: Loader, validation: Loader, epochs: list[Epoch]
    ) -> None:
        """Begin a run, or resume it after some completed epochs."""
        ...

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float, error: float) -> None:
        """Show a completed step.

        Args:
            epoch: from 1.
            step: of the epoch, from 1.
            steps: number of steps of an epoch.
            images: of the epoch, in the steps whose results have been read.
            loss: mean over these images, in nats.
            error: mean top-1 error over these images, in percent.
        """
        ...

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Show an epoch that is completed and saved.

        Args:
            epoch: the metrics.
            best: whether no earlier epoch has an equal or lower top-1 error.
        """
        ...


class Silent:
    """A `Reporter` that shows nothing."""

    def progress(self, steps: Iterable[int], total: int, description: str, /) -> Iterable[int]:
        """Return the steps unchanged."""
        return steps

    def note(self, text: str) -> None:
        """Do nothing."""

    def start(
        self, model: nn.Module, recipe: Recipe, training: Loader, validation: Loader, epochs: list[Epoch]
    ) -> None:
        """Do nothing."""

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float, error: float) -> None:
        """Do nothing."""

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Do nothing."""
