"""What steps came to: kept on the device, and read together."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Step", "StepResult", "Verdict", "judge"]


@dataclass(frozen=True)
class Step:
    """A step whose result is not known yet.

    Attributes:
        epoch, number: of the step, both from 1.
        lr: its learning rate.
        images: of the batch, over all processes.
    """

    epoch: int
    number: int
    lr: float
    images: int


@dataclass(frozen=True)
class StepResult:
    """The result of a step, on the device.

    Attributes:
        values: (4,), loss, wrong labels, norm of the gradient, and scale of the loss: 0 where it is not scaled.
        lost, overflow: (), whether the loss is not finite, and whether the gradient's norm is not.
        dropped: (), whether there is no update.
        failed: (), whether that is a fault, and not half precision looking for its scale.
    """

    values: Tensor
    lost: Tensor
    overflow: Tensor
    dropped: Tensor
    failed: Tensor

    @classmethod
    def of(cls, sums: Tensor, norm: Tensor, scale: Tensor | None) -> "StepResult":
        """From (2,), loss and wrong labels; and norm and scale, ()."""
        scale = torch.zeros_like(norm) if scale is None else scale
        values = torch.stack((sums[0], sums[1], norm.to(sums.dtype), scale.to(sums.dtype)))
        _, _, overflow, _ = broken = ~values.isfinite()
        lost = broken[0]
        return cls(values, lost, overflow, lost | overflow, lost | (overflow & (values[3] <= 1)))


@dataclass(frozen=True)
class Verdict:
    """A result that was read.

    Attributes:
        loss: of the batch, in nats.
        wrong: labels that were not the first.
        dropped: whether there is no update.
        problem: what is not finite, where that is a fault; otherwise "".
    """

    loss: float
    wrong: int
    dropped: bool
    problem: str


def judge(values: list[float]) -> Verdict:
    """What a result's values say; as `StepResult.of` finds on the device."""
    loss, wrong, norm, scale = values
    if not math.isfinite(loss):
        return Verdict(loss, 0, True, f"the loss is {loss}")
    if math.isfinite(norm):
        return Verdict(loss, int(wrong), False, "")
    # Half precision finds its scale by steps like this one; but none is left below 1.
    problem = f"the norm of the gradient is {norm}" + (f", at the scale {scale}" if scale else "")
    return Verdict(loss, int(wrong), True, problem if scale <= 1 else "")
