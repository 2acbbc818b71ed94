"""The results that a run writes into its folder after each epoch: models, metrics and curves."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict

from torch import nn

from senet import model_file
from senet.runs.folder import RunFolder
from senet.runs.metrics import Epoch, best_of, read_epochs
from senet.utils.figures import draw_curves
from senet.utils.files import atomic_path

__all__ = ["is_published", "publish"]


def publish(model: nn.Module, epochs: Sequence[Epoch], folder: RunFolder, title: str | None) -> None:
    """Write the results of an epoch.

    Args:
        model: the network that the last epoch evaluated.
        epochs: all completed epochs, at least one.
        folder: of the run.
        title: of the curves; None does not draw them again.

    Raises:
        OSError: a file cannot be written.
    """
    model_file.save(model, folder.last_model)
    if best_of(epochs) is epochs[-1]:
        with atomic_path(folder.best_model) as temporary:
            temporary.unlink()
            try:
                os.link(folder.last_model, temporary)  # the next epoch replaces last_model, and does not write into it
            except OSError:
                shutil.copyfile(folder.last_model, temporary)
    if title is not None:
        draw_curves([asdict(epoch) for epoch in epochs], folder.curves, title)
    lines = [json.dumps(asdict(epoch)) + "\n" for epoch in epochs]
    with atomic_path(folder.metrics) as temporary:  # last: where metrics are, all other files are
        temporary.write_text("".join(lines), encoding="utf-8")


def is_published(folder: RunFolder, epochs: int) -> bool:
    """Return whether the folder holds the results of this number of epochs, with valid metrics."""
    try:
        return len(read_epochs(folder.metrics)) == epochs
    except ValueError:
        return False
