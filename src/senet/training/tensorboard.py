"""The metrics of a run for TensorBoard."""

from typing import Any

from senet.runs.folder import RunFolder
from senet.runs.metrics import Epoch
from senet.utils.extras import install_command

__all__ = ["TensorBoard"]


class TensorBoard:
    """Write the epochs of a run into the folder `tensorboard` of its folder.

    Args:
        folder: of the run.
        epochs: completed ones, which replace what an earlier process wrote.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self, folder: RunFolder, epochs: list[Epoch]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(f"TensorBoard is not installed: {install_command('train')}") from error
        self._writer: Any = SummaryWriter(str(folder.tensorboard), purge_step=0)
        for epoch in epochs:
            self.write(epoch)

    def write(self, epoch: Epoch) -> None:
        """Write an epoch."""
        for name, value in epoch.as_row().items():
            if name != "epoch":
                self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()
