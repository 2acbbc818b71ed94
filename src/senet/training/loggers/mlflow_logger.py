"""The metrics of a run for MLflow, on the server or in the store that `MLFLOW_TRACKING_URI` names."""

import os
import time
from collections.abc import Mapping
from typing import Any

from senet.training.loggers.logger import Ending, LoggedRun
from senet.utils.extras import optional_import

__all__ = ["MLflowLogger", "import_mlflow"]

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def import_mlflow() -> Any:
    """Import the library.

    Raises:
        ValueError: it is not installed, or cannot be imported.
    """
    with optional_import("mlflow", "the logger 'mlflow' needs mlflow"):
        import mlflow
    return mlflow


class MLflowLogger:
    """Logs to the experiment `MLFLOW_EXPERIMENT_NAME`, or "senet". A resumed run continues under its id."""

    def __init__(self, run: LoggedRun) -> None:
        self.logged = run.logged
        self._client: Any = import_mlflow().MlflowClient()
        if run.id is not None:
            self._client.update_run(run.id, status="RUNNING")
            self.id = run.id
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "senet")
            found = self._client.get_experiment_by_name(name)
            experiment = self._client.create_experiment(name) if found is None else found.experiment_id
            self.id = str(self._client.create_run(experiment, run_name=run.folder.name).info.run_id)
            self._log_parameters(run.config)
        self.where = f"run {self.id} at {self._client.tracking_uri}"

    def _log_parameters(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self.id, params=[Param(key, str(value)) for key, value in config.items()])

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of an epoch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])

    def close(self, ending: Ending) -> None:
        """Set the status of the run."""
        self._client.set_terminated(self.id, status=_STATUS[ending])
