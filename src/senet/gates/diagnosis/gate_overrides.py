"""Override gates by constants with forward hooks. The network itself is not modified."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from senet.graph.se_modules import SEUnit, find_se
from senet.utils.errors import unknown_name

__all__ = ["GateOverrides", "override_gates"]


class GateOverrides:
    """Constants for gates of a network. Each can be active or not.

    Attributes:
        active: names of the SE modules whose gates are overridden; it can be changed at any time.

    Args:
        model: the network.
        values: the constant gates (C,), gain included, by the names of SE modules.

    Raises:
        ValueError: an unknown SE module, or values that are not C finite numbers.
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
                    f"expected {unit.channels} finite gates for {name!r}, one for each channel, got {value.numel()} of "
                    f"shape {tuple(value.shape)}; record the gates of this network"
                )
            self._units.append(unit)
            self._values[name] = value

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attach hooks to the gates within this context."""
        with ExitStack() as hooks:
            for unit in self._units:
                hooks.enter_context(unit.gate.register_forward_hook(self._hook(unit)))
            yield

    def _hook(self, unit: SEUnit) -> Any:
        # SqueezeExcitation multiplies the output of its gate by its gain. Divide in float64, so that rounding cancels.
        value = self._values[unit.name].double() / unit.gain
        axis = unit.gate_axis

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if unit.name not in self.active:
                return None
            trailing = 0 if axis == -1 else output.ndim - 2
            constant = value.to(output.device, output.dtype).view(-1, *[1] * trailing)
            return constant.expand_as(output).clone()  # a tensor that later operations may modify in place

        return hook


@contextmanager
def override_gates(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Override gates of a network by constants within this context, for any input.

    This affects all calls of these modules, of any library. A forward hook that was registered on a gate earlier still
    sees the computed gates; a hook that is registered later sees the constants.

    Args:
        model: the network.
        values: the gates (C,), gain included, by the names of SE modules as in `find_se`; for the squeeze "none" the
            same at each position.

    Raises:
        ValueError: an unknown SE module, or values that are not C finite numbers.

    Examples:
        >>> from senet.gates import override_gates
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> with override_gates(model, {"layer1.0.bn2.se": torch.ones(16)}):
        ...     y = model(torch.randn(2, 3, 32, 32))
    """
    overrides = GateOverrides(model, values)
    overrides.active = frozenset(values)
    with overrides.attached():
        yield
