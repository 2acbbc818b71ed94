"""The metrics of a run for trackio: in its local store, or in the Space that `TRACKIO_SPACE_ID` names."""

import os
from collections.abc import Mapping
from typing import Any

from senet.training.loggers.logger import Ending, LoggedRun
from senet.utils.extras import optional_import

__all__ = ["TrackioLogger", "import_trackio"]


def import_trackio() -> Any:
    """Import the library.

    Raises:
        ValueError: it is not installed, or cannot be imported.
    """
    with optional_import("trackio", "the logger 'trackio' needs trackio"):
        import trackio
    return trackio


class TrackioLogger:
    """Logs to the project `TRACKIO_PROJECT`, or "senet". A resumed run continues under its name."""

    def __init__(self, run: LoggedRun) -> None:
        self.logged = run.logged
        project = os.environ.get("TRACKIO_PROJECT", "senet")
        # trackio identifies a run by its name, so runs in folders of the same name need different names.
        self.id = run.id or f"{run.folder.name}-{os.urandom(3).hex()}"
        self._run: Any = import_trackio().init(
            project=project,
            name=self.id,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        self.where = f"trackio show --project {project}"

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of an epoch."""
        self._run.log(dict(metrics), step=step)

    def close(self, ending: Ending) -> None:
        """Write what is pending."""
        self._run.finish()
