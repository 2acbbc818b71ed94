"""A run's folder as a study sees it: how far it is, whether it is done, and whether somebody writes to it."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from senet.runs.comparison import read_epochs
from senet.study.plan.plan import Plan, PlannedRun
from senet.utils.errors import FolderInUseError
from senet.utils.input_files import read_json

__all__ = ["epochs_of", "failure_of", "is_busy", "is_done", "last_words", "try_lock"]

_ERROR = "error: "
_TAIL = 5


def epochs_of(folder: Path) -> tuple[int, float | None]:
    """Completed epochs of a run's folder, and the top-1 error in percent after the last; none if they are damaged.

    A run whose metrics are damaged is not done: its command writes them anew from its checkpoint.
    """
    try:
        epochs = read_epochs(folder / "metrics.jsonl")
    except ValueError:
        return 0, None
    return len(epochs), float(epochs[-1]["top1_error"]) if epochs else None


def is_done(plan: Plan, run: PlannedRun) -> bool:
    """Whether a run's folder holds all of its epochs and no more, by this very recipe and network."""
    from senet.recipes import load_recipe
    from senet.recipes.recipe import FREE

    wanted = asdict(plan.recipe_of(run))
    if epochs_of(run.folder)[0] != wanted["epochs"]:
        return False
    try:
        found = asdict(load_recipe(run.folder / "recipe.toml"))
        network = read_json(run.folder / "run.json", "run")["network"]
    except Exception:  # damaged: the run's command writes them anew
        return False
    same = all(_plain(found[key]) == _plain(wanted[key]) for key in wanted if key not in FREE)
    return same and network == run.arm.network


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


def is_busy(folder: Path) -> bool:
    """Whether a run is writing to a folder."""
    lock = try_lock(folder / ".lock") if (folder / ".lock").exists() else None
    if lock is None:
        return (folder / ".lock").exists()
    lock.release()
    return False


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def try_lock(path: Path) -> Any:
    """A lock that is held by this process from now on, or None where another has it. One that ends lets go of it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
