"""The metrics of a run for TensorBoard, in the folder `tensorboard` of the run."""

from collections.abc import Mapping
from typing import Any

from senet.training.loggers.logger import Ending, LoggedRun
from senet.utils.extras import optional_import

__all__ = ["TensorBoardLogger", "import_tensorboard"]


def import_tensorboard() -> Any:
    """Import the library.

    Raises:
        ValueError: it is not installed, or cannot be imported.
    """
    with optional_import("train", "the logger 'tensorboard' needs tensorboard"):
        import tensorboard
    return tensorboard


class TensorBoardLogger:
    """Writes scalars. A resumed run writes all epochs again, in place of what an earlier process wrote."""

    id = None

    def __init__(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.logged = 0
        folder = run.folder / "tensorboard"
        self.where = f"tensorboard --logdir {folder}"
        self._writer: Any = SummaryWriter(str(folder), purge_step=0)

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, ending: Ending) -> None:
        """Close the file."""
        self._writer.close()
