"""A planned run: whether it is done, and how its latest command failed."""

import os
from pathlib import Path

from senet.runs.folder import RunFolder
from senet.study.plan.plan import Plan, PlannedRun
from senet.utils.errors import FolderInUseError

__all__ = ["failure_of", "is_done", "last_words"]

_ERROR = "error: "
_TAIL = 5


def is_done(plan: Plan, run: PlannedRun) -> bool:
    """Return whether a run's folder holds all of its epochs and no more, with the recipe and network of the plan."""
    return RunFolder(run.folder).is_complete(plan.recipe_of(run), run.arm.network)


def last_words(log: Path) -> str:
    """What a run's command printed last, at its latest attempt: from its error on where it has one, else a few lines.

    Args:
        log: what the commands of all attempts printed, each below a line "$ COMMAND".
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"its log cannot be read: {error}"
    begins = [number for number, line in enumerate(lines, 1) if line.startswith("$ ")]
    tail = [line.rstrip() for line in lines[begins[-1] if begins else 0 :] if line.strip()][-_TAIL:]
    errors = [number for number, line in enumerate(tail) if line.startswith(_ERROR)]
    return "\n".join(tail[errors[0] :] if errors else tail)


def failure_of(run: PlannedRun) -> str:
    """The error that ended a run's latest attempt; empty where none did, or its folder was in use by another."""
    first = last_words(run.log).partition("\n")[0]
    failed = first.startswith(_ERROR) and _exit_status(run) != FolderInUseError.exit_status
    return first.removeprefix(_ERROR) if failed else ""


def _exit_status(run: PlannedRun) -> int | None:
    """Exit status of a run's latest command; None where the study was killed before it was known."""
    try:
        return int(run.status_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
