"""The metrics of a run for Weights & Biases. `WANDB_MODE=offline` writes into the run's folder only."""

import os
from collections.abc import Mapping
from typing import Any

from senet.training.loggers.logger import Ending, LoggedRun
from senet.utils.extras import optional_import

__all__ = ["WandbLogger", "import_wandb"]


def import_wandb() -> Any:
    """Import the library.

    Raises:
        ValueError: it is not installed, or cannot be imported.
    """
    with optional_import("wandb", "the logger 'wandb' needs wandb"):
        import wandb
    return wandb


class WandbLogger:
    """Logs to the project `WANDB_PROJECT`, or "senet". A resumed run continues under its id."""

    def __init__(self, run: LoggedRun) -> None:
        wandb = import_wandb()
        self.logged = run.logged
        # Without output of wandb's own: the command line prints JSON to the one stream, and progress to the other.
        settings = wandb.Settings(console="off", silent=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "senet"),
            name=os.environ.get("WANDB_NAME", run.folder.name),
            id=run.id or os.environ.get("WANDB_RUN_ID"),
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
            settings=settings,
        )
        self.id: str | None = self._run.id
        offline = f"wandb sync {run.folder}/wandb/offline-run-*"
        self.where = offline if self._run.offline else str(self._run.url)
        self._run.define_metric("*", step_metric="epoch")

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of an epoch."""
        self._run.log({**metrics, "epoch": step}, step=step)

    def close(self, ending: Ending) -> None:
        """Upload what is pending."""
        self._run.finish(exit_code=int(ending == "failed"))
