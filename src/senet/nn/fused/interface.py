"""Arguments and results of the whole operation (batch norm, SE, sum, ReLU), and the protocol of its backends."""

from typing import Literal, NamedTuple, Protocol

from torch import Tensor

__all__ = ["Excitation", "Gradients", "MapActivation", "Needs", "Running", "WholeBackend"]

# Between a batch norm and SE, as `senet.nn.block.ACTIVATIONS` names them.
MapActivation = Literal["relu", "relu6", "silu", "hard_swish"]


class Excitation(NamedTuple):
    """The excitation: gain * gate(w2 activation(w1 z + b1) + b2).

    Args:
        w1: (H, C).
        b1: (H,), or None.
        w2: (C, H).
        b2: (C,), or None.
        gain: multiplies the gate.
        gate: "sigmoid", "hard_sigmoid", "tanh" or "relu".
        activation: "relu" or "silu".
    """

    w1: Tensor
    b1: Tensor | None
    w2: Tensor
    b2: Tensor | None
    gain: float
    gate: str
    activation: str


class Running(NamedTuple):
    """Running statistics, which training changes in place.

    Args:
        mean, var: (C,).
        count: (), the batches so far, int64; None where they are not counted.
        momentum: share of this batch; None is the cumulative average, 1 / count.
    """

    mean: Tensor
    var: Tensor
    count: Tensor | None  # type: ignore[assignment]  # in place of tuple's method
    momentum: float | None


class Needs(NamedTuple):
    """Which gradients are required."""

    y: bool
    weight: bool
    bias: bool
    w1: bool
    b1: bool
    w2: bool
    b2: bool
    skip: bool


class Gradients(NamedTuple):
    """Gradients in the dtypes of what they belong to; None where none is required."""

    y: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    w1: Tensor | None
    b1: Tensor | None
    w2: Tensor | None
    b2: Tensor | None
    skip: Tensor | None


class WholeBackend(Protocol):
    """A backend that computes batch norm, SE, sum and ReLU as one operation.

    All tensors are on one device, and parameters are contiguous. y, skip and g have one shape (N, C, *spatial), one
    dtype and one memory format, which is contiguous or channels last. Strides of axes of length 1 may differ.
    """

    def fits(self, channels: int, hidden: int, samples: int) -> bool:
        """Return whether the widths of the excitation and the samples are accepted; `hidden` is 0 without SE."""
        ...

    def forward(
        self,
        y: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running: Running | None,
        eps: float,
        se: Excitation | None,
        skip: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Compute relu(se(bn(y)) + skip), or se(bn(y)) without a skip, and what backward needs, as one buffer."""
        ...

    def backward(
        self,
        g: Tensor,
        y: Tensor,
        out: Tensor | None,
        keep: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        se: Excitation | None,
        eps: float,
        needs: Needs,
    ) -> Gradients:
        """Compute the gradients that are needed; `out` is forward's output where there was a skip."""
        ...

    def evaluate(
        self,
        y: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        se: Excitation | None,
        skip: Tensor | None,
    ) -> Tensor:
        """Compute forward's result by running statistics."""
        ...
