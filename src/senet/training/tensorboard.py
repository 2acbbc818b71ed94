"""The figures of `metrics.jsonl` for TensorBoard."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from senet.runs.metrics import Epoch
from senet.utils.extras import install_command

__all__ = ["TensorBoard"]


class TensorBoard:
    """Writes a run's epochs into its folder `tensorboard`.

    Args:
        output: the run's folder.
        epochs: that are done; they are written anew, in place of what an earlier process wrote.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self, output: Path, epochs: list[Epoch]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(f"TensorBoard is not installed: {install_command('train')}") from error
        self._writer: Any = SummaryWriter(str(output / "tensorboard"), purge_step=0)
        for epoch in epochs:
            self.write(epoch)

    def write(self, epoch: Epoch) -> None:
        """Add an epoch."""
        for name, value in asdict(epoch).items():
            if name != "epoch":
                self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()
