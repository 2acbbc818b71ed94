"""A Lightning callback that logs the gates of a network during training."""

from typing import Any

from torch import nn

from senet.gates import GateMonitor
from senet.utils.extras import optional_import

__all__ = ["GateMonitorCallback"]


def _callback() -> Any:
    """Return Lightning's base class of callbacks."""
    with optional_import("lightning", "the callback needs Lightning", ImportError):
        from lightning.pytorch import Callback
    return Callback


_Callback: Any = _callback()


class GateMonitorCallback(_Callback):  # type: ignore[misc]
    """Log statistics of the gates of a module to the loggers of its trainer, see `senet.GateMonitor`.

    Args:
        every: number of optimizer steps between two recorded steps.
        network: name of the network within the module, such as "model"; by default the module itself.
    """

    def __init__(self, every: int = 100, network: str = "") -> None:
        self._every, self._network = every, network
        self._monitor: GateMonitor | None = None
        self._steps = 0

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Start to monitor.

        Raises:
            GatesError, ValueError: see `senet.GateMonitor`.
            AttributeError: the module has no network of this name.
        """

        def log(metrics: Any, step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(dict(metrics), step=step)

        self._steps = trainer.global_step
        self._monitor = GateMonitor(pl_module.get_submodule(self._network), log, every=self._every)

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, *args: Any) -> None:
        """Log the gates of an optimizer step that was recorded."""
        if self._monitor is not None and trainer.global_step > self._steps:  # or more batches are accumulated
            self._steps = trainer.global_step
            self._monitor.step(self._steps)

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Remove the hooks."""
        if self._monitor is not None:
            self._monitor.close()

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        """Remove the hooks."""
        self.on_train_end(trainer, pl_module)
