"""What every logger is: a function of metrics and a step, which can be closed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from senet.utils.choices import LoggerName

__all__ = ["Ending", "Log", "LoggedRun", "Logger"]

# How a run ended: all epochs are done; a signal stopped it; an error ended it.
Ending = Literal["finished", "stopped", "failed"]
# What `senet.train` takes: the name of a logger, or a function of metrics and an epoch.
Log = LoggerName | Callable[[Mapping[str, float], int], object]


class Logger(Protocol):
    """Where metrics go. A library raises whatever it raises: `RunLoggers` handles errors.

    Attributes:
        where: where to see the metrics, for the user.
        logged: number of epochs that need not be logged again after a run was resumed.
    """

    where: str
    logged: int

    @property
    def id(self) -> str | None:
        """The run in the library, which a resumed run continues; None if it continues without one."""
        ...

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics by name at a step, which is the number of completed epochs."""
        ...

    def close(self, ending: Ending) -> None:
        """Write what is pending, and report how the run ended."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """What a logger is opened with.

    Attributes:
        folder: of the run, absolute.
        config: settings of the run by name, such as "lr" and "network.reduction".
        id: of the run in the library, if an earlier process logged it; None otherwise.
        logged: number of epochs that earlier processes logged.
    """

    folder: Path
    config: Mapping[str, Any]
    id: str | None = None
    logged: int = 0
