"""The metrics of a run for TensorBoard, Weights & Biases, MLflow, trackio, or a function of the user.

One file per library, behind one protocol. Imports `senet.runs` and below; `senet.training.loop` uses it.
"""

from senet.training.loggers.logger import Log, LoggedRun, Logger
from senet.training.loggers.run_loggers import RunLoggers, check_loggers

__all__ = ["Log", "LoggedRun", "Logger", "RunLoggers", "check_loggers"]
