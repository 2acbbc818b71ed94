"""Find SE blocks whose hidden units are idle: no image comes near to activating a ReLU, so the gates are constant."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from senet.graph.se_modules import SEUnit, find_se

__all__ = ["MIN_IMAGES", "IdleUnits"]

# From this many images on, "no image activates a unit" is no accident: a unit that 3 % of all images activate is
# activated by one of 100 with a probability of 95 %.
MIN_IMAGES = 100
# An idle unit stays inactive for squeezes up to this many times as large as the largest in the data.
_MARGIN = 4.0


class IdleUnits:
    """Observes the hidden units of SE modules while a network runs.

    A unit's ReLU is inactive if w z + b <= 0. If b < -4 max |w z| over all images, it stays inactive for squeezes four
    times as large as any in the data. A unit that is inactive by chance, for a few images, has no such bias.

    Args:
        model: the network.
        names: names of the SE modules.
    """

    def __init__(self, model: nn.Module, names: Mapping[str, Any]) -> None:
        self._units = [unit for unit in find_se(model) if unit.name in names and _can_be_idle(unit)]
        self._largest: dict[str, Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Observe within this context."""
        with ExitStack() as hooks:
            for unit in self._units:
                if unit.reduce:
                    hooks.enter_context(unit.reduce.register_forward_hook(self._hook(unit)))
            yield

    def _hook(self, unit: SEUnit) -> Any:
        reduce: Any = unit.reduce
        axis = -1 if isinstance(reduce, nn.Linear) else 1

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            weighted = output.detach().movedim(axis, -1).flatten(0, -2).double() - reduce.bias.double()
            largest = weighted.abs().amax(0).cpu()
            self._largest[unit.name] = torch.maximum(self._largest.get(unit.name, largest), largest)

        return hook

    def idle(self) -> set[str]:
        """Return the SE modules in which all hidden units that a gate reads are idle."""
        found = set()
        for unit in self._units:
            expand: Any = unit.expand
            reduce: Any = unit.reduce
            reads, bias = expand.weight.flatten(1).any(0).cpu(), reduce.bias.detach().double().cpu()
            largest = self._largest.get(unit.name)
            if largest is not None and bool((bias + _MARGIN * largest < 0)[reads].all()):
                found.add(unit.name)
        return found


def _can_be_idle(unit: SEUnit) -> bool:
    """Return whether the bias alone can deactivate hidden units: a ReLU directly after a layer with a bias."""
    reduce: Any = unit.reduce
    return type(unit.activation) is nn.ReLU and unit.norm is None and reduce is not None and reduce.bias is not None
