"""Statistics of the gates during training, at an interval of steps."""

import math
from collections.abc import Callable, Mapping
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from senet.graph.example_inputs import Example
from senet.graph.se_modules import SEUnit, find_se, watch_gates
from senet.utils.errors import GatesError, shown
from senet.utils.option_types import check_integer

__all__ = ["GateMonitor"]

# A gate is saturated within this fraction of its range from either end.
_MARGIN = 0.01


class GateMonitor:
    """Log statistics of the gates of a network every few training steps.

    Call `step` after each optimizer step, and `close` at the end, or use the monitor in a `with` block. It records the
    first step and the multiples of `every`. Hooks are on the network in these steps only, and evaluation is not
    recorded. The network may come from any library; fused passes call the hooks as well, and compute the excitation of
    a recorded step by PyTorch's layers.

    For each SE module NAME, the metrics are, over the images of the step:

    - `gates/NAME/mean`: the mean over images and channels.
    - `gates/NAME/std`: the standard deviation over images and channels.
    - `gates/NAME/std_images`: the standard deviation over images, averaged over channels: 0 for constant gates.
    - `gates/NAME/saturated`: the fraction of gates within 1 % of an end of their range, such as 0 and 1 for a sigmoid;
      for a ReLU the fraction that is 0. Omitted for gates without bounds.

    Gates at several positions of a map count as several channels.

    Attributes:
        metrics: those of the last recorded step; empty before it.

    Args:
        model: the network itself, not compiled. `torch.compile` runs no hooks that are attached later.
        log: is called with the metrics and the number of the step, such as the `log` method of a W&B run.
        every: number of steps between two recorded steps.
        example: an input of the network, see `senet.graph.se_modules.find_se`.

    Raises:
        GatesError: the network has no SE.
        TypeError: `model` is no module, `log` is not callable, or `every` is no integer.
        ValueError: `every` is below 1.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> with senet.GateMonitor(model, lambda metrics, step: print(step, len(metrics)), every=2) as monitor:
        ...     for _ in range(3):
        ...         loss = model(torch.randn(2, 3, 32, 32)).square().mean()
        ...         monitor.step()  # after the optimizer's
        1 36
        2 36
    """

    def __init__(
        self,
        model: nn.Module,
        log: Callable[[Mapping[str, float], int], object],
        *,
        every: int = 100,
        example: Example | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {shown(model)}")
        if not callable(log):
            raise TypeError(f"log must be a function of the metrics and the step, such as run.log, got {shown(log)}")
        check_integer("every", every)
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        units = find_se(model, example)
        if not units:
            raise GatesError(
                f"a {type(model).__name__} has no SE, and no gates to monitor; insert SE with senet.insert"
            )
        self.metrics: dict[str, float] = {}
        self._model, self._log, self._every = model, log, every
        self._blocks = [_Block(unit) for unit in units]
        self._steps = 0
        self._handles: list[RemovableHandle] = []
        self._attach()

    def step(self, step: int | None = None) -> None:
        """Finish a training step: log its gates if it was recorded.

        Args:
            step: number of completed steps, for the log; by default the calls of this method are counted.

        Raises:
            GatesError: no SE module ran in a step that was to be recorded.
        """
        self._steps += 1
        if self._handles:
            self.close()
            found = [block for block in self._blocks if block.calls]
            if not found:
                raise GatesError(
                    "no SE module ran in training mode in this step, or not through its hooks; give GateMonitor the "
                    "network that is trained, not compiled"
                )
            numbers = torch.cat([torch.stack(block.calls) for block in found]).tolist()  # waits for the device once
            self.metrics = {}
            for block in found:
                count = len(block.calls)
                self.metrics |= block.metrics(numbers[:count])
                numbers = numbers[count:]
                block.calls.clear()
            self._log(self.metrics, self._steps if step is None else step)
        if (self._steps + 1) % self._every == 0:
            self._attach()

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _attach(self) -> None:
        self._handles = [watch_gates(block.unit, self._recorder(block)) for block in self._blocks]

    def _recorder(self, block: "_Block") -> Callable[[Tensor], None]:
        def record(gates: Tensor) -> None:
            if self._model.training:
                block.record(gates)

        return record

    def __enter__(self) -> "GateMonitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Block:
    """The gates of an SE module in a step.

    Attributes:
        unit: the module.
        calls: (5,) each, on the device: number of gates, mean, variance, mean over channels of the standard deviation
            over images, fraction of saturated gates.
    """

    def __init__(self, unit: SEUnit) -> None:
        self.unit = unit
        self.calls: list[Tensor] = []

    @torch.no_grad()
    def record(self, gates: Tensor) -> None:
        """Record a call: (N, C), or (N, *positions, C)."""
        s = gates.detach().float().flatten(1)
        low, high = self.unit.gate_range
        saturated = torch.zeros_like(s, dtype=torch.bool)
        margin = _MARGIN * (high - low) if math.isfinite(high - low) else 0.0
        if math.isfinite(low):
            saturated |= s <= low + margin
        if math.isfinite(high):
            saturated |= s >= high - margin
        variance, mean = torch.var_mean(s, correction=0)
        images = s.std(0, correction=0).mean()
        count = torch.full_like(mean, s.numel())
        self.calls.append(torch.stack((count, mean, variance, images, saturated.float().mean())))

    def metrics(self, calls: list[list[float]]) -> dict[str, float]:
        """Return the metrics of a step from the numbers of its calls."""
        total = sum(call[0] for call in calls)

        def average(values: list[float]) -> float:
            return sum(call[0] / total * value for call, value in zip(calls, values, strict=True))

        mean = average([call[1] for call in calls])
        found = {
            "mean": mean,
            "std": math.sqrt(average([call[2] + (call[1] - mean) ** 2 for call in calls])),
            "std_images": average([call[3] for call in calls]),
        }
        if any(map(math.isfinite, self.unit.gate_range)):
            found["saturated"] = average([call[4] for call in calls])
        return {f"gates/{self.unit.name}/{name}": value for name, value in found.items()}
