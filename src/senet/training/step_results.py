"""The results of steps: kept on the device, and read together."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Step", "StepResult", "Verdict", "judge"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step whose result has not been read.

    Attributes:
        epoch, number: of the step, both from 1.
        lr: its learning rate.
        images: of the batch, over all processes.
    """

    epoch: int
    number: int
    lr: float
    images: int


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The result of a step, on the device.

    Attributes:
        values: (3 + counters,), loss, sums of the counters, norm of the gradient, and scale of the loss: 0 if not
            scaled.
        lost, overflow: (), whether the loss is not finite, and whether the gradient's norm is not.
        dropped: (), whether the step makes no update.
        failed: (), whether that is an error, and not half precision adapting its scale.
    """

    values: Tensor
    lost: Tensor
    overflow: Tensor
    dropped: Tensor
    failed: Tensor

    @classmethod
    def of(cls, sums: Tensor, norm: Tensor, scale: Tensor | None) -> "StepResult":
        """Return the result of a step.

        Args:
            sums: (1 + counters,), loss, and sums of the counters of the task.
            norm: (), of the gradient.
            scale: (), of the loss; None if it is not scaled.
        """
        scale = torch.zeros_like(norm) if scale is None else scale
        values = torch.cat((sums, torch.stack((norm.to(sums.dtype), scale.to(sums.dtype)))))
        broken = ~values.isfinite()
        lost, overflow = broken[0], broken[-2]
        return cls(
            values=values,
            lost=lost,
            overflow=overflow,
            dropped=lost | overflow,
            failed=lost | (overflow & (values[-1] <= 1)),
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of a step that has been read.

    Attributes:
        loss: of the batch, in nats.
        counts: sums of the counters.
        dropped: whether the step made no update.
        problem: what is not finite, if that is an error; otherwise "".
    """

    loss: float
    counts: tuple[float, ...]
    dropped: bool
    problem: str


def judge(values: list[float]) -> Verdict:
    """Return the verdict on the values of a `StepResult`; the rules are those of `StepResult.of`, on the host."""
    loss, *sums, norm, scale = values
    counts = tuple(sums)
    if not math.isfinite(loss):
        return Verdict(loss=loss, counts=counts, dropped=True, problem=f"the loss is {loss}")
    if math.isfinite(norm):
        return Verdict(loss=loss, counts=counts, dropped=False, problem="")
    # Half precision adapts its scale by steps like this one, but not below 1.
    problem = f"the norm of the gradient is {norm}" + (f", at the scale {scale}" if scale else "")
    return Verdict(loss=loss, counts=counts, dropped=True, problem=problem if scale <= 1 else "")
