"""The loggers of a run. What a library does wrong is reported, and changes neither the run nor its bits."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, get_args

from senet.runs.folder import RunFolder
from senet.runs.metrics import Epoch
from senet.training.loggers.logger import Ending, Log, LoggedRun, Logger
from senet.training.loggers.mlflow_logger import MLflowLogger, import_mlflow
from senet.training.loggers.tensorboard_logger import TensorBoardLogger, import_tensorboard
from senet.training.loggers.trackio_logger import TrackioLogger, import_trackio
from senet.training.loggers.wandb_logger import WandbLogger, import_wandb
from senet.utils.choices import LoggerName
from senet.utils.errors import first_line, shown, unknown_name
from senet.utils.files import write_json
from senet.utils.input_files import read_json
from senet.utils.modes import preserved_generators

__all__ = ["RunLoggers", "check_loggers"]

# A logger, and what imports its library.
_LOGGERS: dict[LoggerName, tuple[Callable[[LoggedRun], Logger], Callable[[], Any]]] = {
    "tensorboard": (TensorBoardLogger, import_tensorboard),
    "wandb": (WandbLogger, import_wandb),
    "mlflow": (MLflowLogger, import_mlflow),
    "trackio": (TrackioLogger, import_trackio),
}
# Failures in a row after which nothing more is logged: each may take minutes until a connection times out.
_GIVE_UP = 3


def check_loggers(log: Log | Sequence[Log]) -> list[Log]:
    """Return loggers as a list, each once, after checking that their libraries can be imported.

    Raises:
        ValueError: an unknown name, or a library that is not installed; the message has the command that installs it.
        TypeError: neither a name nor a function.
    """
    logs = list(dict.fromkeys([log] if isinstance(log, str) or callable(log) else log))
    for one in logs:
        if callable(one):
            continue
        if not isinstance(one, str):
            raise TypeError(f"log must be a name or a function of metrics and an epoch, got {shown(one)}")
        if one not in _LOGGERS:
            raise ValueError(unknown_name("logger", one, get_args(LoggerName)))
        with _unseen():
            _LOGGERS[one][1]()
    return logs


class RunLoggers:
    """Logs the epochs of a run; closes the loggers at the end of a `with` block.

    A logger that fails is tried again after the next epoch, with the epochs that it missed. The file `loggers.json` of
    the folder has the id of the run in each library and the number of epochs logged.

    Args:
        logs: of `check_loggers`.
        folder: of the run.
        config: settings of the run.
        epochs: completed ones.
        planned: number of epochs of the complete run.
        note: shows a line to the user.

    Raises:
        ValueError: a library refuses to start, or `loggers.json` is damaged.
    """

    def __init__(
        self,
        logs: Sequence[Log],
        *,
        folder: RunFolder,
        config: Mapping[str, Any],
        epochs: Sequence[Epoch],
        planned: int,
        note: Callable[[str], None],
    ) -> None:
        self._folder, self._note, self._planned, self._done = folder, note, planned, len(epochs)
        self._failures: dict[str, int] = {}
        self._state: dict[str, Any] = {}
        if logs and folder.loggers.exists():
            self._state = dict(read_json(folder.loggers, "state of loggers"))
        self._loggers: dict[str, Logger] = {}
        for number, log in enumerate(logs):
            if isinstance(log, str):
                self._loggers[log] = self._open(log, config)
                note(f"{log}: {self._loggers[log].where}")
            else:
                self._loggers[f"logger {number + 1}"] = _Function(log, len(epochs))
        self._remember()
        self.write(epochs)

    def write(self, epochs: Sequence[Epoch]) -> None:
        """Log the epochs that each logger does not have.

        Args:
            epochs: all completed ones.
        """
        self._done = len(epochs)
        for name, logger in self._loggers.items():
            if self._failures.get(name, 0) >= _GIVE_UP:
                continue
            try:
                for epoch in epochs[logger.logged :]:
                    row = epoch.as_row()
                    step = row.pop("epoch")
                    with _unseen():
                        logger(row, step)
                    logger.logged = step
                    self._failures[name] = 0
            except Exception as error:
                self._failed(name, error)
        self._remember()

    def __enter__(self) -> "RunLoggers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        ending: Ending = "failed" if kind else "finished" if self._done >= self._planned else "stopped"
        for name, logger in self._loggers.items():
            try:
                with _unseen():
                    logger.close(ending)
            except Exception as error:
                self._note(f"{name} failed at the end of the run: {_described(error)}")

    def _open(self, name: LoggerName, config: Mapping[str, Any]) -> Logger:
        before = self._state.get(name, {})
        run = LoggedRun(
            folder=self._folder.path.absolute(), config=config, id=before.get("id"), logged=before.get("logged", 0)
        )
        try:
            with _unseen():
                return _LOGGERS[name][0](run)
        except Exception as error:
            with suppress(Exception):
                self.__exit__(type(error))  # of those before it
            raise ValueError(f"{name} does not start: {_described(error)}") from error

    def _failed(self, name: str, error: Exception) -> None:
        self._failures[name] = self._failures.get(name, 0) + 1
        again = "it is tried again after the next epoch"
        if self._failures[name] >= _GIVE_UP:
            again = f"after {_GIVE_UP} failures nothing more is logged to it; --resume would log what is missing"
        self._note(f"{name} failed after epoch {self._done}, and training continues: {_described(error)}; {again}")

    def _remember(self) -> None:
        """Write what a resumed run has to know."""
        state = {
            name: {"id": logger.id, "logged": logger.logged}
            for name, logger in self._loggers.items()
            if logger.id is not None
        }
        if state and self._state != {**self._state, **state}:
            self._state.update(state)
            try:
                write_json(self._folder.loggers, self._state)
            except OSError as error:
                self._note(f"{self._folder.loggers} cannot be written, and training continues: {_described(error)}")


class _Function:
    """A function of the user, which is called with the epochs that this process completes."""

    id = None
    where = ""

    def __init__(self, function: Callable[[Mapping[str, float], int], object], logged: int) -> None:
        self.logged = logged
        self._function = function

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        self._function(metrics, step)

    def close(self, ending: Ending) -> None:
        """Do nothing."""


@contextmanager
def _unseen() -> Iterator[None]:
    """Run a library without an effect on random numbers and on standard output, where a program may read JSON."""
    with preserved_generators(), redirect_stdout(io.StringIO()):
        yield


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
