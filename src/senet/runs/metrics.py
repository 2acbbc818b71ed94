"""What a run says of itself: a line an epoch, a summary, and who is told while it goes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from senet.data import Loader
from senet.recipes.recipe import Recipe

__all__ = ["Epoch", "Reporter", "Run", "Silent", "best_of", "how_far"]


@dataclass(frozen=True)
class Epoch:
    """A line of `metrics.jsonl`.

    Attributes:
        epoch: from 1.
        lr: learning rate of the last step.
        train_loss, train_error: means over the epoch's augmented images, as they were trained on; in nats and percent.
            The error of a mixed image is that of the label it had before.
        loss, top1_error, top5_error: of the validation data after the epoch; of the averaged weights, where there are.
        seconds: of training; evaluation is not counted.
        images_per_second: of training.
        nonfinite_steps: that were left out, their loss or gradient not being finite.
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
    """The epoch of least top-1 error, the first of several."""
    return min(epochs, key=lambda epoch: epoch.top1_error)


@dataclass(frozen=True)
class Run:
    """What a run came to.

    Attributes:
        output: its folder.
        epochs: that were completed, those before it was resumed among them.
        signal: number of the signal that ended it early, or None.
        step: steps that the epoch after those was at, when it was saved.
        skipped: names of images that could not be read.
        seconds: where the time went, by kind of work: since it was started or resumed.
    """

    output: Path
    epochs: list[Epoch]
    signal: int | None = None
    step: int = 0
    skipped: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it early."""
        return self.signal is not None

    @property
    def best(self) -> Epoch | None:
        """The epoch of least top-1 error, the first of several."""
        return best_of(self.epochs) if self.epochs else None


def how_far(epochs: int, steps: int) -> str:
    """Epochs and the steps after them, in words."""
    words = [f"{n} {unit}{'s' if n != 1 else ''}" for n, unit in ((epochs, "epoch"), (steps, "step"))]
    return " and ".join(words) if steps else words[0]


class Reporter(Protocol):
    """Who is told how a run goes; `Silent` says nothing."""

    def progress(self, steps: Any, total: int, what: str) -> Any:
        """Show progress over steps that are no training: decoding, evaluation."""
        ...

    def note(self, text: str) -> None:
        """Something that a user should know, such as where a run resumes."""
        ...

    def start(
        self, model: nn.Module, recipe: Recipe, training: Loader, validation: Loader, epochs: list[Epoch]
    ) -> None:
        """A run starts, or goes on after epochs that it has completed."""
        ...

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float, error: float) -> None:
        """A step is done: its number in the epoch from 1; images and means of the epoch, as far as steps were read."""
        ...

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """An epoch is done and saved."""
        ...


class Silent:
    """Tells nobody."""

    def progress(self, steps: Any, total: int, what: str) -> Any:
        """The steps as they are."""
        return steps

    def note(self, text: str) -> None:
        """Nothing."""

    def start(
        self, model: nn.Module, recipe: Recipe, training: Loader, validation: Loader, epochs: list[Epoch]
    ) -> None:
        """Nothing."""

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float, error: float) -> None:
        """Nothing."""

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Nothing."""
