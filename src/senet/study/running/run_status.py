"""A planned run: whether it is done, and how its latest command failed."""

import os
from pathlib import Path

from senet.runs.folder import RunFolder
from senet.study.plan.plan import Plan, PlannedRun
from senet.utils.errors import FolderInUseError

__all__ = ["error_of", "is_done", "log_tail"]

_ERROR = "error: "
# Lines of a log that are kept, and bytes that are read for them.
_TAIL = 5
_TAIL_BYTES = 20_000


def is_done(plan: Plan, run: PlannedRun) -> bool:
    """Return whether a run's folder holds all of its epochs and no more, with the recipe and network of the plan."""
    return RunFolder(run.folder).is_complete(plan.recipe_of(run), run.arm.network)


def log_tail(log: Path) -> str:
    """Return the last lines that a run's latest command printed, starting at its error if there is one.

    Args:
        log: output of the commands of all attempts, each after a line "$ COMMAND".
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"cannot read its log: {error}"
    begins = [number for number, line in enumerate(lines, 1) if line.startswith("$ ")]
    tail = [line.rstrip() for line in lines[begins[-1] if begins else 0 :] if line.strip()][-_TAIL:]
    errors = [number for number, line in enumerate(tail) if line.startswith(_ERROR)]
    return "\n".join(tail[errors[0] :] if errors else tail)


def error_of(run: PlannedRun) -> str:
    """Return the error that ended a run's latest command; empty without one, or where its folder was in use."""
    first = log_tail(run.log).partition("\n")[0]
    failed = first.startswith(_ERROR) and _exit_status(run) != FolderInUseError.exit_status
    return first.removeprefix(_ERROR) if failed else ""


def _exit_status(run: PlannedRun) -> int | None:
    """Return the exit status of a run's latest command; None where the study was killed before it knew it."""
    try:
        return int(run.status_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
