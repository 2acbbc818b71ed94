"""Whether a run starts, resumes a checkpoint, or is complete already."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from senet.data import Loader
from senet.recipes.recipe import Recipe
from senet.runs.folder import RunFolder
from senet.runs.metrics import Epoch
from senet.runs.publishing import is_published
from senet.runs.reporting import Reporter, Run, describe_position
from senet.tasks import get_task
from senet.training.checkpoint import describe_changes, read_checkpoint, restore, rounds_differently, skipped_images
from senet.training.trainer import Trainer

__all__ = ["Resumption"]


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """The checkpoint of a folder, and the run that may resume it; the first process alone reads files.

    Attributes:
        folder: of the run.
        resume: the user, or a restart by torchrun, asks to resume.
        identity: of this run, see `senet.training.checkpoint.identity`.
        recipe: of this run.
    """

    folder: RunFolder
    resume: bool
    identity: dict[str, Any]
    recipe: Recipe

    def completed(self, reporter: Reporter) -> Run | None:
        """Return the result of the run if it is complete; None otherwise."""
        if not self.folder.find_checkpoint(self.resume) or not is_published(self.folder, self.recipe):
            return None
        state = self._read()["state"]
        if len(state["epochs"]) != self.folder.planned(self.recipe):
            return None
        task = get_task(self.recipe.task)
        epochs = [Epoch.from_row(epoch, task) for epoch in state["epochs"]]
        reporter.note(f"this run is complete, with {describe_position(len(epochs), 0)}")
        return Run(self.folder.path, epochs, skipped=list(state["skipped"]), task=task)

    def enter(self, stack: ExitStack) -> dict[str, Any] | None:
        """Lock the folder until the stack closes; return the checkpoint to resume, or None to start."""
        stack.enter_context(self.folder.locked())
        return self._read() if self.folder.find_checkpoint(self.resume) else None

    def _read(self) -> dict[str, Any]:
        checkpoint = read_checkpoint(self.folder.checkpoint)
        self._changes(checkpoint, self.identity)  # raises before the images are read, which takes time
        return checkpoint

    def restore(
        self, trainer: Trainer, checkpoint: dict[str, Any], loaders: tuple[Loader, Loader], reporter: Reporter
    ) -> None:
        """Restore a trainer from a checkpoint, and report what has changed since it was written."""
        identity = self.identity | skipped_images(*loaders)
        changes = self._changes(checkpoint, identity)
        restore(trainer, checkpoint["state"], self.folder.checkpoint)
        for change in changes:
            reporter.note(f"resuming with changed {change}")
        if rounds_differently(checkpoint["identity"], identity):
            reporter.note("the result will not be bitwise identical to an uninterrupted run")

    def _changes(self, checkpoint: dict[str, Any], identity: dict[str, Any]) -> list[str]:
        """Return what has changed, in what is known of this run so far."""
        before = checkpoint["identity"]
        return describe_changes(before, before | identity, self.recipe, checkpoint["state"])
