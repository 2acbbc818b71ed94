"""The state of the epoch in training: its steps, and what has been counted in them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["EpochState"]


@dataclass(kw_only=True)
class EpochState:
    """Counts of an epoch, in the steps whose results have been read; a checkpoint has each field as an entry.

    Attributes:
        step: completed steps.
        images: over all processes.
        wrong: images whose label was not predicted first.
        left_out: steps without an update, since their loss or gradient was not finite.
        loss_sum: sum of the images' losses, in nats.
        seconds: of training.
        lr: learning rate of the last step.
    """

    step: int = 0
    images: int = 0
    wrong: int = 0
    left_out: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    lr: float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss, in nats."""
        return self.loss_sum / max(self.images, 1)

    @property
    def error(self) -> float:
        """Top-1 error, in percent."""
        return 100 * self.wrong / max(self.images, 1)

    def state_dict(self) -> dict[str, int | float]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "EpochState":
        """Return the state of a checkpoint, whose other entries are ignored.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or no number.
        """
        return cls(
            step=int(state["step"]),
            images=int(state["images"]),
            wrong=int(state["wrong"]),
            left_out=int(state["left_out"]),
            loss_sum=float(state["loss_sum"]),
            seconds=float(state["seconds"]),
            lr=float(state["lr"]),
        )
