"""A run's folder: who may write to it, and what is in it.

`checkpoint.pt` is what a run goes on from. Everything else follows from it and is written after it, so that a run that
is killed in between finds all of it again.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from torch import nn

from senet import model_file
from senet.runs.comparison import read_epochs
from senet.runs.metrics import Epoch, best_of
from senet.utils.errors import FolderInUseError
from senet.utils.figures import draw_curves
from senet.utils.files import atomic_path, check_folder, sweep

__all__ = ["CHECKPOINT", "check_free", "is_published", "locked", "publish"]

CHECKPOINT = "checkpoint.pt"
# Of a run that stopped before its first checkpoint; they are no loss.
_EARLY = ("recipe.toml", "run.json", "tensorboard", ".lock")
# Seconds: worker processes of a run that was killed notice it after five, and share its lock until then.
_PATIENCE = 8.0


def check_free(output: Path, resume: bool) -> bool:
    """Whether a run is to go on from the checkpoint in a folder, or starts.

    Raises:
        ValueError: the folder holds something else, or a checkpoint that nobody asked to go on from.
        OSError: the folder cannot be written to, see `check_folder`.
    """
    if output.is_file():
        raise ValueError(f"the output {output} is in use: it is a file; choose another name, or remove it")
    check_folder(output)
    if not output.exists():
        return False
    there = sorted(path.name for path in output.iterdir())
    if CHECKPOINT in there:
        if resume:
            return True
        raise ValueError(f"the output {output} is in use: --resume goes on with its run; or choose another folder")
    other = [name for name in there if name not in _EARLY and not name.startswith(".")]
    if other:
        raise ValueError(
            f"the output {output} is in use: it holds {other[0]!r}, and no {CHECKPOINT} to go on from; choose another "
            f"folder, or remove it"
        )
    return False


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """The folder is this process's alone; it is made if need be. A process that ends, however, lets go of it.

    Raises:
        FolderInUseError: another run is writing to it.
        OSError: it cannot be written to.
    """
    from filelock import FileLock, Timeout

    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / ".lock", thread_local=False)
    try:
        lock.acquire(timeout=_PATIENCE, poll_interval=0.2)
    except Timeout as error:
        raise FolderInUseError(output) from error
    try:
        sweep(output)
        yield
    except BaseException:
        with suppress(OSError):  # the folder may be gone
            if is_new and [path.name for path in output.iterdir()] == [".lock"]:
                shutil.rmtree(output)  # nothing came of it
        raise
    finally:
        lock.release()


def publish(model: nn.Module, epochs: Sequence[Epoch], output: Path, title: str | None) -> None:
    """Write the results of an epoch: models, metrics and curves.

    Args:
        model: the network that the last epoch evaluated.
        epochs: every epoch until now, at least one.
        output: the run's folder.
        title: of the curves; None leaves those that are there.

    Raises:
        OSError: a file cannot be written.
    """
    last = output / "last.safetensors"
    model_file.save(model, last)
    if best_of(epochs) is epochs[-1]:
        with atomic_path(output / "best.safetensors") as temporary:
            temporary.unlink()
            try:
                os.link(last, temporary)  # nobody writes into it: the next epoch's takes its place
            except OSError:
                shutil.copyfile(last, temporary)
    if title is not None:
        draw_curves([asdict(epoch) for epoch in epochs], output / "curves.png", title)
    lines = [json.dumps(asdict(epoch)) + "\n" for epoch in epochs]
    with atomic_path(output / "metrics.jsonl") as temporary:  # the last: with it, all is there
        temporary.write_text("".join(lines), encoding="utf-8")


def is_published(output: Path, epochs: int) -> bool:
    """Whether all files are of so many epochs, and their metrics can be read."""
    try:
        return len(read_epochs(output / "metrics.jsonl")) == epochs
    except ValueError:
        return False
