"""Constants in place of gates, for a while: by hooks, so that the network itself stays as it is."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from senet.graph.se_modules import SEUnit, find_se
from senet.utils.errors import unknown_name

__all__ = ["Replacements", "replaced"]


class Replacements:
    """Constants for gates of a network, each of which is in place or not.

    Attributes:
        active: names of the SE modules whose gates are constants now; may be changed at any time.

    Args:
        model: the network.
        values: (C,) each, the gates themselves, by the names of SE modules.

    Raises:
        ValueError: a name that is no SE module's, another number of values than channels, or values that are not
            finite.
    """

    def __init__(self, model: nn.Module, values: Mapping[str, Tensor]) -> None:
        units = {unit.name: unit for unit in find_se(model)}
        self.active: Collection[str] = frozenset()
        self._units: list[SEUnit] = []
        self._values: dict[str, Tensor] = {}
        for name, value in values.items():
            if name not in units:
                raise ValueError(unknown_name("SE module", name, units))
            value, unit = torch.as_tensor(value).detach(), units[name]
            if value.shape != (unit.channels,) or not value.isfinite().all():
                raise ValueError(
                    f"the gates of {name!r} must be {unit.channels} finite numbers, one for each channel, got "
                    f"{value.numel()} of shape {tuple(value.shape)}; record those of this very network"
                )
            self._units.append(unit)
            self._values[name] = value

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks on the gates as long as this lasts: those of `active` give their constants."""
        handles = [unit.gate.register_forward_hook(self._hook(unit)) for unit in self._units]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, unit: SEUnit) -> Any:
        # A block of ours multiplies what its gate gives by its gain; in float64, so that rounding takes it back.
        value = self._values[unit.name].double() / unit.gain
        axis = unit.gate_axis

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if unit.name not in self.active:
                return None
            behind = 0 if axis == -1 else output.ndim - 2
            constant = value.to(output.device, output.dtype).view(-1, *[1] * behind)
            return constant.expand_as(output).clone()  # a tensor of its own, that others may write to

        return hook


@contextmanager
def replaced(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Have gates of a network be constants, whatever its input; as before when this ends.

    All calls of these modules give the constants, whichever library they are of. Who watches a gate by a hook that
    was there before still sees what was computed; by a later one, the constant.

    Args:
        model: the network.
        values: by the name of an SE module, as `find_se` has it, its gates (C,), gain included; for the squeeze "none"
            the same at each position.

    Raises:
        ValueError: a name that is no SE module's, another number of values than channels, or values that are not
            finite.
    """
    replacements = Replacements(model, values)
    replacements.active = frozenset(values)
    with replacements.attached():
        yield
