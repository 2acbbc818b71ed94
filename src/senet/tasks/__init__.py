"""What a network is trained for: metrics, loss, evaluation and predictions of a task.

Imports `senet.evaluation` and below. Gates, recipes, runs, training, studies and the command line use it.
"""

from senet.tasks.collector import Collector
from senet.tasks.objective import Objective, ObjectiveContext
from senet.tasks.registry import get_task, store_task, stored_entries, task_of, trunk_of
from senet.tasks.running import evaluate, loader_for, predict
from senet.tasks.task import Outcomes, Result, Task
from senet.utils.metric import Metric, Panel

__all__ = [
    "Collector",
    "Metric",
    "Objective",
    "ObjectiveContext",
    "Outcomes",
    "Panel",
    "Result",
    "Task",
    "evaluate",
    "get_task",
    "loader_for",
    "predict",
    "store_task",
    "stored_entries",
    "task_of",
    "trunk_of",
]
