"""The tasks by name."""

from senet.tasks.classification import Classification
from senet.tasks.task import Task
from senet.utils.choices import TaskName, check_choice

__all__ = ["get_task"]

_TASKS: dict[str, Task] = {task.name: task for task in (Classification(),)}


def get_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        ValueError: there is no such task; the message names the closest one.
    """
    check_choice("task", name, TaskName)
    return _TASKS[name]
