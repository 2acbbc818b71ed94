"""The tasks by name."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from senet.tasks.classification import Classification
from senet.tasks.detection import Detection
from senet.tasks.multilabel import MultiLabel
from senet.tasks.task import Task
from senet.utils.choices import TaskName, check_choice

__all__ = ["get_task", "store_task", "stored_entries", "task_of", "trunk_of"]

_TASKS: dict[str, Task] = {task.name: task for task in (Classification(), Detection(), MultiLabel())}


def get_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        ValueError: there is no such task; the message names the closest one.
    """
    check_choice("task", name, TaskName)
    return _TASKS[name]


def task_of(model: nn.Module) -> Task:
    """Return the task that a network was trained for, by its `pretrained_cfg`; classification if it names none.

    Raises:
        ValueError: it names an unknown task, or has invalid values of it.
    """
    cfg: Any = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, Mapping):
        return get_task(Classification.name)
    task = get_task(cfg.get("task", Classification.name))
    task.check_stored(cfg, len(cfg.get("label_names") or ()))
    return task


def trunk_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Return `Task.trunk` of a network, and the prefix of its names: "" of the network itself."""
    trunk = task_of(model).trunk(model)
    name = next((name for name, module in model.named_modules() if module is trunk), "")
    return f"{name}." if name else "", trunk


def stored_entries(model: nn.Module) -> dict[str, Any]:
    """Return what the `pretrained_cfg` of a network has of its task: none of a classifier."""
    cfg: Any = getattr(model, "pretrained_cfg", None)
    return {key: cfg[key] for key in ("task", *task_of(model).stored) if key in cfg} if isinstance(cfg, Mapping) else {}


def store_task(model: nn.Module, task: Task) -> None:
    """Name the task in the `pretrained_cfg` of a network, and remove what an earlier task stored there.

    Classification, the only task of earlier versions, is named by the absence of the entry.
    """
    cfg: Any = model.pretrained_cfg
    for key in ("task", *(key for one in _TASKS.values() for key in one.stored)):
        cfg.pop(key, None)
    if task.name != Classification.name:
        cfg["task"] = task.name
