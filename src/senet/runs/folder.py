"""The folder of a training run: the names of its files, its state, and who may write to it.

`checkpoint.pt` is what a run is resumed from. All other files follow from it and are written after it, so that a
resumed run restores them if the run was killed in between.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from senet.recipes.recipe import FREE, Recipe
from senet.recipes.toml import load_recipe
from senet.runs.metrics import read_epochs
from senet.tasks import Task, get_task
from senet.utils.errors import FolderInUseError
from senet.utils.files import check_folder, sweep
from senet.utils.input_files import read_json

__all__ = ["RunFolder", "try_lock"]

# Seconds: worker processes of a run that was killed notice it after five, and share its lock until then.
_PATIENCE = 8.0


@dataclass(frozen=True)
class RunFolder:
    """The output folder of `senet.train`.

    Args:
        path: of the folder, which may not exist.
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The state of training, from which the run is resumed."""
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        """One line for each epoch, see `Epoch`."""
        return self.path / "metrics.jsonl"

    @property
    def recipe(self) -> Path:
        """The recipe, all values in force."""
        return self.path / "recipe.toml"

    @property
    def description(self) -> Path:
        """The network, the data, and the versions and hardware of the run, as JSON."""
        return self.path / "run.json"

    @property
    def last_model(self) -> Path:
        """The network after the last epoch."""
        return self.path / "last.safetensors"

    @property
    def best_model(self) -> Path:
        """The network after the best epoch by the task's decisive metric."""
        return self.path / "best.safetensors"

    @property
    def curves(self) -> Path:
        """The task's metrics by epoch, drawn."""
        return self.path / "curves.png"

    @property
    def loggers(self) -> Path:
        """What loggers other than TensorBoard have of the run, as JSON."""
        return self.path / "loggers.json"

    @property
    def lock_file(self) -> Path:
        """The file that the process which trains the run holds locked."""
        return self.path / ".lock"

    @property
    def is_run(self) -> bool:
        """Whether the folder has a run."""
        return self.description.is_file()

    def find_checkpoint(self, resume: bool) -> bool:
        """Return whether a run resumes the folder's checkpoint (True) or starts (False).

        Args:
            resume: the user asked to resume.

        Raises:
            ValueError: the folder holds something else, or a checkpoint without `resume`.
            OSError: the folder cannot be written to, see `check_folder`.
        """
        if self.path.is_file():
            raise ValueError(f"the output {self.path} is in use: it is a file; choose another name, or remove it")
        check_folder(self.path)
        if not self.path.exists():
            return False
        names = sorted(path.name for path in self.path.iterdir())
        if self.checkpoint.name in names:
            if resume:
                return True
            raise ValueError(
                f"the output {self.path} is in use: add --resume to resume its run, or choose another folder"
            )
        # What a run writes before its first checkpoint may be overwritten.
        early = {*(path.name for path in (self.recipe, self.description, self.loggers)), "tensorboard", "wandb"}
        other = [name for name in names if name not in early and not name.startswith(".")]
        if other:
            raise ValueError(
                f"the output {self.path} is in use: it holds {other[0]!r}, and no {self.checkpoint.name} to resume; "
                f"choose another folder, or remove it"
            )
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if it does not exist, and keep other runs out of it; the lock ends with the process.

        Raises:
            FolderInUseError: another run is writing to the folder.
            OSError: the folder cannot be written to.
        """
        is_new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.lock_file, _PATIENCE)
        if lock is None:
            raise FolderInUseError(self.path)
        try:
            sweep(self.path)
            yield
        except BaseException:
            with suppress(OSError):  # the folder may have been removed
                if is_new and [path.name for path in self.path.iterdir()] == [self.lock_file.name]:
                    shutil.rmtree(self.path)  # the run wrote nothing
            raise
        finally:
            lock.release()

    def is_busy(self) -> bool:
        """Return whether a run is writing to the folder."""
        if not self.lock_file.exists():
            return False
        lock = try_lock(self.lock_file)
        if lock is None:
            return self.lock_file.exists()
        lock.release()
        return False

    def completed(self, task: Task) -> tuple[int, float | None]:
        """Return the number of completed epochs, and the task's decisive metric after the last one.

        Returns:
            (0, None) if there are none, or if the metrics are damaged: resuming writes them again from the checkpoint.
        """
        try:
            epochs = read_epochs(self.metrics, task)
        except ValueError:
            return 0, None
        return len(epochs), float(epochs[-1][task.decisive.key]) if epochs else None

    def planned(self, recipe: Recipe) -> int:
        """Return the number of epochs of a complete run; 0 if that depends on the data and no run has begun."""
        if recipe.epochs:
            return recipe.epochs
        try:
            return int(read_json(self.description, "run")["epochs"])
        except (OSError, ValueError, TypeError, KeyError):  # missing or damaged: resuming writes it again
            return 0

    def is_complete(self, recipe: Recipe, network: str) -> bool:
        """Return whether the folder holds all epochs of a run of this recipe and network, and no more."""
        done = self.completed(get_task(recipe.task))[0]
        if not done or done != self.planned(recipe):
            return False
        try:
            found_recipe = load_recipe(self.recipe)
            found_network = read_json(self.description, "run")["network"]
        except (OSError, ValueError, TypeError, KeyError):  # damaged: resuming writes the files again
            return False
        return bool(found_network == network and _settings(found_recipe) == _settings(recipe))


def _settings(recipe: Recipe) -> Any:
    """Return what decides the result of a run, as JSON has it."""
    values = {key: value for key, value in asdict(recipe).items() if key not in FREE}
    return json.loads(json.dumps(values, default=str))


def try_lock(path: Path, timeout: float = 0.0) -> Any:
    """Lock a file until its `release`, or until this process ends; None if another process keeps it locked.

    Args:
        path: of the file, which is made if it does not exist.
        timeout: seconds to wait for the lock.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=timeout, poll_interval=0.2)
    except Timeout:
        return None
    return lock
