"""The gates of SE that do not depend on its input, by its weights."""

from typing import Any

import torch
from torch import Tensor

from senet.graph.se_modules import SEUnit

__all__ = ["gates_by_weights"]


@torch.no_grad()
def gates_by_weights(unit: SEUnit) -> Tensor | None:
    """Return (C,) in float64, the gates of an SE module if they do not depend on its input; otherwise None.

    The input does not reach the gates if the last layer's weights are zero, as with `init="identity"`, or if the last
    layer only reads hidden units whose own weights are zero.
    """
    expand: Any = unit.expand
    reads = expand.weight.flatten(1).any(0)  # the inputs with a nonzero weight
    if unit.reduce is None or not reads.any():
        hidden = expand.weight.new_zeros(1, *expand.weight.shape[1:2], *[1] * (expand.weight.ndim - 2))
        return None if reads.any() else _gates_of(unit, hidden)
    reduce: Any = unit.reduce
    depends = reduce.weight.flatten(1).any(1)
    if (depends & reads).any() or unit.activation is None or unit.norm is not None:
        return None
    squeezed = reduce.weight.new_zeros(1, *reduce.weight.shape[1:2], *[1] * (reduce.weight.ndim - 2))
    return _gates_of(unit, unit.activation(reduce(squeezed)))


def _gates_of(unit: SEUnit, hidden: Tensor) -> Tensor:
    """Return (C,), the gates for given hidden units."""
    gates: Tensor = unit.gate(unit.expand(hidden))
    return gates.flatten().double().cpu() * unit.gain
