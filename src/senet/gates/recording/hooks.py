"""Record the SE blocks of a running network with hooks, which are removed afterwards."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from senet.gates.recording.record import HiddenUnits
from senet.gates.recording.statistics import Counts, Floats, Statistics, bounded_edges, unbounded_edges
from senet.graph.se_modules import SEUnit, watch_gates
from senet.utils.errors import GatesError, NonFiniteGatesError

__all__ = ["BlockRecorder", "GateHooks"]

# Activations without negative outputs.
_NONNEGATIVE = ("ReLU", "ReLU6", "Sigmoid")


@dataclass
class _Accumulator:
    """Accumulates the statistics of a quantity, such as the gates of a block.

    Attributes:
        what: name of the quantity, for messages.
        statistics: its statistics.
        calls: for each call in the current batch the number of positions, the mean over them, and the variance (None
            for one position).
    """

    what: str
    statistics: Statistics
    calls: list[tuple[int, Tensor, Tensor | None]] = field(default_factory=list)

    def record(self, values: Tensor) -> None:
        """Record a call: (N, C), or (N, *positions, C)."""
        if values.ndim == 2:
            self.calls.append((1, values.detach(), None))  # processed at the end of the batch
            return
        # A whole map would take too much memory.
        values = values.detach().flatten(1, -2)
        self.statistics.count(values)
        variance, mean = torch.var_mean(values.to("cpu", torch.float64), 1, correction=0)
        self.calls.append((values.shape[1], mean, variance))

    def finish_batch(self, block: str, labels: Tensor, indices: Counts) -> Tensor:
        """Add the batch to the statistics.

        Args:
            block: name of the block, for messages.
            labels: (N,), classes of the images.
            indices: (N,), indices of the images in the data.

        Returns:
            (N, C), float64: each image's mean over positions and calls.

        Raises:
            GatesError: a value is not finite, or the number of images differs.
        """
        calls = [(n, mean.to("cpu", torch.float64), variance) for n, mean, variance in self.calls]
        self.calls = []
        for _, mean, _ in calls:
            if len(mean) != len(labels):
                raise GatesError(
                    f"the block {block!r} received {len(mean)} images, but the batch has {len(labels)}; give a network "
                    f"that passes each image through its blocks once"
                )
        positions = sum(n for n, _, _ in calls)
        if positions == 1:
            values, variances = calls[0][1], None
        else:  # Chan's formula over positions
            values = sum((n / positions * mean for n, mean, _ in calls), torch.zeros(()))
            parts = [n / positions * ((mean - values).square() + (0 if v is None else v)) for n, mean, v in calls]
            variances = sum(parts, torch.zeros(()))
        if not bool(values.isfinite().all()):
            row, channel = (~values.isfinite()).nonzero()[0].tolist()
            raise NonFiniteGatesError(
                f"the {self.what} of the block {block!r} is {float(values[row, channel])} in channel {channel} for "
                f"image {int(indices[row])} of the data; check the weights and this image, or record in float32"
            )
        for _, mean, variance in calls:
            if variance is None:
                self.statistics.count(mean)
        self.statistics.add_images(values, labels, variances)
        return values


class BlockRecorder:
    """Records one SE block.

    Attributes:
        unit: the SE module.
        positive: (H,), the number of activation inputs above 0; None if there is one layer.
        inputs: the number of activation inputs of each hidden unit.

    Args:
        unit: the SE module.
        classes: K.
        correlation: whether to record the covariance of channels.
    """

    def __init__(self, unit: SEUnit, classes: int, correlation: bool) -> None:
        self.unit = unit
        edges = unbounded_edges(negative=True)
        gates = Statistics.empty(classes, unit.channels, _gate_edges(unit), comoments=correlation)
        self._gates = _Accumulator("gate", gates)
        self._squeezes = _Accumulator("squeeze", Statistics.empty(classes, unit.channels, edges))
        self._outputs: _Accumulator | None = None
        self.positive: Counts | None = None
        self.inputs = 0
        if unit.reduce is not None and unit.hidden_channels is not None:
            edges = unbounded_edges(negative=type(unit.activation).__name__ not in _NONNEGATIVE)
            self._outputs = _Accumulator("hidden unit", Statistics.empty(1, unit.hidden_channels, edges))
            self.positive = torch.zeros(unit.hidden_channels, dtype=torch.int64).numpy()

    @property
    def gates(self) -> Statistics:
        """Return the statistics of the gates."""
        return self._gates.statistics

    @property
    def squeezes(self) -> Statistics:
        """Return the statistics of the squeezes."""
        return self._squeezes.statistics

    @property
    def outputs(self) -> Statistics | None:
        """Return the statistics of the hidden units' outputs, or None if there is one layer."""
        return None if self._outputs is None else self._outputs.statistics

    @property
    def hidden(self) -> HiddenUnits | None:
        """Return the statistics of the hidden units, or None if there is one layer."""
        if self.outputs is None or self.positive is None:
            return None
        weight: Any = self.unit.expand.weight
        lengths: Floats = weight.detach().to("cpu", torch.float64).flatten(1).norm(dim=0).numpy()
        return HiddenUnits(self.positive, self.inputs, self.outputs, lengths)

    def resume(self, gates: Statistics, squeezes: Statistics, hidden: HiddenUnits | None) -> None:
        """Continue from earlier statistics."""
        self._gates.statistics, self._squeezes.statistics = gates, squeezes
        if hidden is not None and self._outputs is not None:
            self._outputs.statistics = hidden.outputs
            self.positive, self.inputs = hidden.positive, hidden.calls

    @property
    def calls(self) -> int:
        """Return the number of calls in the current batch."""
        return len(self._gates.calls)

    def finish_batch(self, labels: Tensor, indices: Counts) -> tuple[Tensor, Tensor]:
        """Add the batch to the statistics, and return each image's gates and squeezes (N, C)."""
        squeezes = self._squeezes.finish_batch(self.unit.name, labels, indices)
        if self._outputs is not None:
            self._outputs.finish_batch(self.unit.name, torch.zeros_like(labels), indices)
        return self._gates.finish_batch(self.unit.name, labels, indices), squeezes

    def record_squeeze(self, values: Tensor) -> None:
        """Record the input of the first layer."""
        self._squeezes.record(self.unit.rows(values))

    def record_gates(self, values: Tensor) -> None:
        """Record the gates: (N, C), or (N, *positions, C)."""
        self._gates.record(values)

    def record_input(self, values: Tensor) -> None:
        """Record the input of the activation, which may overwrite it."""
        assert self.positive is not None
        values = self.unit.rows(values).detach().flatten(0, -2)
        self.positive += (values > 0).sum(0).cpu().numpy()
        self.inputs += len(values)

    def record_output(self, values: Tensor) -> None:
        """Record the output of the activation."""
        assert self._outputs is not None
        self._outputs.record(self.unit.rows(values))


class GateHooks:
    """Hooks on the SE modules of a network.

    Attributes:
        blocks: the blocks that ran, in order of their first execution.

    Args:
        units: the SE modules.
        classes: K.
        correlation: whether to record the covariance of channels.
    """

    def __init__(self, units: Sequence[SEUnit], classes: int, correlation: bool) -> None:
        self._all = [BlockRecorder(unit, classes, correlation) for unit in units]
        self.blocks: list[BlockRecorder] = []
        # The block whose excitation is running: blocks may share modules such as activations.
        self._current: BlockRecorder | None = None
        self._enabled = False

    def __getitem__(self, name: str) -> BlockRecorder:
        return next(block for block in self._all if block.unit.name == name)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attach the hooks within this context."""
        with ExitStack() as hooks:
            for block in self._all:
                for handle in self._attach(block):
                    hooks.enter_context(handle)
            yield

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record within this context. Other forward passes are ignored."""
        self._enabled = True
        try:
            yield
        finally:
            self._enabled, self._current = False, None

    def finish_batch(self, labels: Tensor, indices: Counts) -> list[tuple[Tensor, Tensor]]:
        """Add the batch to the statistics, and return each image's gates and squeezes (N, C), for each block.

        Raises:
            GatesError: no block ran, or not the same blocks as in the first batch; a value is not finite.
        """
        ran = [block for block in self._all if block.calls]
        if not ran or set(ran) != set(self.blocks):
            odd = sorted(block.unit.name for block in set(ran) ^ set(self.blocks)) or [b.unit.name for b in self._all]
            raise GatesError(
                f"not every SE block ran in every batch, such as {odd[0]!r}; give a network whose forward pass always "
                f"runs the same blocks"
            )
        return [block.finish_batch(labels, indices) for block in self.blocks]

    def _attach(self, block: BlockRecorder) -> Iterator[RemovableHandle]:
        unit = block.unit

        def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self._enabled:
                return
            self._current = block
            if block not in self.blocks:
                self.blocks.append(block)
            block.record_squeeze(args[0])

        def record_input(module: nn.Module, args: tuple[Any, ...]) -> None:
            if self._current is block:
                block.record_input(args[0])

        def record_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self._current is block:
                block.record_output(output)

        def record_gates(gates: Tensor) -> None:
            if self._current is block:
                block.record_gates(gates)
                self._current = None

        yield (unit.reduce or unit.expand).register_forward_pre_hook(begin)
        if block.outputs is not None and unit.activation is not None:
            yield unit.activation.register_forward_pre_hook(record_input)
            yield unit.activation.register_forward_hook(record_output)
        yield watch_gates(unit, record_gates)


def _gate_edges(unit: SEUnit) -> Floats:
    low, high = unit.gate_range
    if math.isfinite(low) and math.isfinite(high):
        return bounded_edges(low, high)
    return unbounded_edges(negative=low < 0)
