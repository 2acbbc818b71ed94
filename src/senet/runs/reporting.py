"""The result of a run, and the interface through which it reports its progress."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import nn

from senet.data import Loader
from senet.recipes.recipe import Recipe
from senet.runs.metrics import Epoch, best_of
from senet.tasks import Task, get_task

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
        task: whose decisive metric selects the best epoch.

    Examples:
        >>> recipe = senet.load_recipe("digits", ["epochs=1", "batch=4", "workers=0"])
        >>> run = senet.train("se_resnet20", "photos", recipe, "runs/new")
        >>> len(run.epochs), run.interrupted, run.best.epoch
        (1, False, 1)
    """

    output: Path
    epochs: list[Epoch]
    signal: int | None = None
    step: int = 0
    skipped: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    task: Task = field(default_factory=lambda: get_task("classification"))

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run early."""
        return self.signal is not None

    @property
    def best(self) -> Epoch | None:
        """The epoch of the best value of the task's decisive metric, the first of several."""
        return best_of(self.epochs, self.task) if self.epochs else None


def describe_position(epochs: int, steps: int) -> str:
    """Return completed epochs, and steps after them, in words: "2 epochs and 1 step"."""
    words = [f"{n} {unit}{'s' if n != 1 else ''}" for n, unit in ((epochs, "epoch"), (steps, "step"))]
    return " and ".join(words) if steps else words[0]


class Reporter(Protocol):
    """Shows the progress of a run; `Silent` shows nothing.

    Examples:
        >>> from senet.runs import Silent
        >>> recipe = senet.load_recipe("digits", ["epochs=1", "batch=4", "workers=0"])
        >>> class Printer(Silent):
        ...     def epoch(self, epoch, best):
        ...         print(f"epoch {epoch.epoch} of {recipe.epochs}")
        >>> run = senet.train("resnet20", "photos", recipe, "runs/new", reporter=Printer())
        epoch 1 of 1
    """

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

    def step(self, epoch: int, step: int, steps: int, images: int, metrics: Mapping[str, float]) -> None:
        """Show a completed step.

        Args:
            epoch: from 1.
            step: of the epoch, from 1.
            steps: number of steps of an epoch.
            images: of the epoch, in the steps whose results have been read.
            metrics: the task's metrics of training over these images, by key.
        """
        ...

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Show an epoch that is completed and saved.

        Args:
            epoch: the metrics.
            best: whether the decisive metric is better than in every earlier epoch.
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

    def step(self, epoch: int, step: int, steps: int, images: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Do nothing."""
