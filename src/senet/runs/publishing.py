"""The results that a run writes into its folder after each epoch: models, metrics and curves."""

import json
import os
import shutil
from collections.abc import Sequence

from torch import nn

from senet import model_file
from senet.recipes.recipe import Recipe
from senet.runs.folder import RunFolder
from senet.runs.metrics import Epoch, best_of, read_epochs
from senet.tasks import Task, get_task
from senet.utils.figures import draw_curves
from senet.utils.files import atomic_path

__all__ = ["is_published", "publish"]


def publish(model: nn.Module, epochs: Sequence[Epoch], folder: RunFolder, title: str | None, task: Task) -> None:
    """Write the results of an epoch.

    Args:
        model: the network that the last epoch evaluated.
        epochs: all completed epochs, at least one.
        folder: of the run.
        title: of the curves; None does not draw them again.
        task: of the run.

    Raises:
        OSError: a file cannot be written.
    """
    model_file.save(model, folder.last_model)
    if best_of(epochs, task) is epochs[-1]:
        with atomic_path(folder.best_model) as temporary:
            temporary.unlink()
            try:
                os.link(folder.last_model, temporary)  # the next epoch replaces last_model, and does not write into it
            except OSError:
                shutil.copyfile(folder.last_model, temporary)
    rows = [epoch.as_row() for epoch in epochs]
    if title is not None:
        draw_curves(rows, folder.curves, title, task.panels)
    lines = [json.dumps(row) + "\n" for row in rows]
    with atomic_path(folder.metrics) as temporary:  # last: where metrics are, all other files are
        temporary.write_text("".join(lines), encoding="utf-8")


def is_published(folder: RunFolder, recipe: Recipe) -> bool:
    """Return whether the folder holds the results of all epochs of a recipe, with valid metrics."""
    try:
        done = len(read_epochs(folder.metrics, get_task(recipe.task)))
    except ValueError:
        return False
    return done > 0 and done == folder.planned(recipe)
