"""Find gates that are constant by the weights of their SE module, whatever its input."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from senet.graph.constant_gates import gates_by_weights
from senet.graph.se_modules import find_se

__all__ = ["constant_gates"]


@torch.no_grad()
def constant_gates(model: nn.Module, values: Mapping[str, Tensor]) -> list[str]:
    """Return the names of SE modules whose gates equal the given values for any input.

    Args:
        model: the network.
        values: the gates (C,) by the names of SE modules.
    """
    found = []
    for unit in find_se(model):
        if unit.name not in values:
            continue
        gates = gates_by_weights(unit)
        if gates is not None and torch.allclose(gates, values[unit.name], rtol=1e-6, atol=1e-6):
            found.append(unit.name)
    return found
