"""The state of the epoch in training: its steps, and what has been counted in them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["EpochState"]


@dataclass(kw_only=True)
class EpochState:
    """Counts of an epoch, in the steps whose results have been read; a checkpoint has each field as an entry.

    Attributes:
        step: completed steps.
        images: over all processes.
        left_out: steps without an update, since their loss or gradient was not finite.
        loss_sum: sum of the images' losses.
        seconds: of training.
        lr: learning rate of the last step.
        counts: sums over the images, by the counters of the task; each is an entry of its own.
    """

    step: int = 0
    images: int = 0
    left_out: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    lr: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self.loss_sum / max(self.images, 1)

    def state_dict(self) -> dict[str, int | float]:
        """Return the fields by name."""
        values = asdict(self)
        counts: dict[str, float] = values.pop("counts")
        return values | counts

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], counters: Iterable[str]) -> "EpochState":
        """Return the state of a checkpoint, whose other entries are ignored.

        Args:
            state: of the checkpoint.
            counters: of the task.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or no number.
        """
        return cls(
            step=int(state["step"]),
            images=int(state["images"]),
            left_out=int(state["left_out"]),
            loss_sum=float(state["loss_sum"]),
            seconds=float(state["seconds"]),
            lr=float(state["lr"]),
            counts={name: float(state[name]) for name in counters},
        )
