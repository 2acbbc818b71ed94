"""What goes through the SE blocks of a network while it runs: hooks that feed figures, and go when this ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from senet.gates.recording.record import HiddenUnits
from senet.gates.recording.statistics import Counts, Floats, Statistics, bounded_edges, unbounded_edges
from senet.graph.se_modules import SEUnit, watch_gates
from senet.utils.errors import GatesError, NonFiniteGatesError

__all__ = ["Watch", "WatchedBlock"]

_POSITIVE = ("ReLU", "ReLU6", "Sigmoid")


@dataclass
class _Quantity:
    """What a batch's images have of a quantity, call by call, and the figures that it goes into.

    Attributes:
        what: its name in a message.
        statistics: its figures.
        calls: of each call since the batch began the number of positions, the mean over them and the variance, None for
            one position.
    """

    what: str
    statistics: Statistics
    calls: list[tuple[int, Tensor, Tensor | None]] = field(default_factory=list)

    def see(self, values: Tensor) -> None:
        """(N, C), or (N, *spatial, C)."""
        if values.ndim == 2:
            self.calls.append((1, values.detach(), None))  # figures of all blocks wait for the end of the batch
            return
        # A map is too large to keep.
        values = values.detach().flatten(1, -2)
        self.statistics.count(values)
        variance, mean = torch.var_mean(values.to("cpu", torch.float64), 1, correction=0)
        self.calls.append((values.shape[1], mean, variance))

    def finish(self, block: str, labels: Tensor, indices: Counts) -> Tensor:
        """Put a batch into the figures.

        Args:
            block: its name, for errors.
            labels: (N,), classes of the images.
            indices: (N,), places of the images in the data.

        Returns:
            (N, C), float64: of each image the mean over its positions and calls.

        Raises:
            GatesError: a value is not finite, or there are more images or fewer.
        """
        calls = [(n, mean.to("cpu", torch.float64), variance) for n, mean, variance in self.calls]
        self.calls = []
        for _, mean, _ in calls:
            if len(mean) != len(labels):
                raise GatesError(
                    f"the block {block!r} had {len(mean)} images where the batch has {len(labels)}; record a network "
                    f"that takes its images one for one"
                )
        positions = sum(n for n, _, _ in calls)
        if positions == 1:
            values, spread = calls[0][1], None
        else:  # Chan's formula once more, over positions
            values = sum((n / positions * mean for n, mean, _ in calls), torch.zeros(()))
            parts = [n / positions * ((mean - values).square() + (0 if v is None else v)) for n, mean, v in calls]
            spread = sum(parts, torch.zeros(()))
        if not bool(values.isfinite().all()):
            row, channel = (~values.isfinite()).nonzero()[0].tolist()
            raise NonFiniteGatesError(
                f"the {self.what} of the block {block!r} is {float(values[row, channel])} in channel {channel} for "
                f"image {int(indices[row])} of the data; look at the weights and at that image, or record in float32"
            )
        for _, mean, variance in calls:
            if variance is None:
                self.statistics.count(mean)
        self.statistics.add_images(values, labels, spread)
        return values


class WatchedBlock:
    """An SE block while it is recorded.

    Attributes:
        unit: what is watched.
        gates, squeezes, outputs: figures; the last of the hidden units, None where there is one layer.
        positive, inputs: how many inputs of the activation were above 0, (H,), and how many there were of each.
    """

    def __init__(self, unit: SEUnit, classes: int, correlation: bool) -> None:
        self.unit = unit
        edges = unbounded_edges(negative=True)
        gates = Statistics.empty(classes, unit.channels, _gate_edges(unit), comoments=correlation)
        self._gates = _Quantity("gate", gates)
        self._squeezes = _Quantity("squeeze", Statistics.empty(classes, unit.channels, edges))
        self._outputs: _Quantity | None = None
        self.positive: Counts | None = None
        self.inputs = 0
        if unit.reduce is not None and unit.hidden_channels is not None:
            edges = unbounded_edges(negative=type(unit.activation).__name__ not in _POSITIVE)
            self._outputs = _Quantity("hidden unit", Statistics.empty(1, unit.hidden_channels, edges))
            self.positive = torch.zeros(unit.hidden_channels, dtype=torch.int64).numpy()

    @property
    def gates(self) -> Statistics:
        """Of the gates."""
        return self._gates.statistics

    @property
    def squeezes(self) -> Statistics:
        """Of the squeezes."""
        return self._squeezes.statistics

    @property
    def outputs(self) -> Statistics | None:
        """Of the hidden units' outputs; None where there is one layer."""
        return None if self._outputs is None else self._outputs.statistics

    @property
    def hidden(self) -> HiddenUnits | None:
        """The hidden units; None where there is one layer."""
        if self.outputs is None or self.positive is None:
            return None
        weight: Any = self.unit.expand.weight
        lengths: Floats = weight.detach().to("cpu", torch.float64).flatten(1).norm(dim=0).numpy()
        return HiddenUnits(self.positive, self.inputs, self.outputs, lengths)

    def go_on(self, gates: Statistics, squeezes: Statistics, hidden: HiddenUnits | None) -> None:
        """Go on from figures that are there."""
        self._gates.statistics, self._squeezes.statistics = gates, squeezes
        if hidden is not None and self._outputs is not None:
            self._outputs.statistics = hidden.outputs
            self.positive, self.inputs = hidden.positive, hidden.calls

    @property
    def calls(self) -> int:
        """How often it ran since the batch began."""
        return len(self._gates.calls)

    def finish(self, labels: Tensor, indices: Counts) -> tuple[Tensor, Tensor]:
        """Put a batch into the figures: of each image gates and squeezes (N, C)."""
        squeezes = self._squeezes.finish(self.unit.name, labels, indices)
        if self._outputs is not None:
            self._outputs.finish(self.unit.name, torch.zeros_like(labels), indices)
        return self._gates.finish(self.unit.name, labels, indices), squeezes

    def see_squeeze(self, values: Tensor) -> None:
        """What goes into the first layer."""
        self._squeezes.see(self._rows(values))

    def see_gates(self, values: Tensor) -> None:
        """(N, C), or (N, *spatial, C)."""
        self._gates.see(values)

    def see_input(self, values: Tensor) -> None:
        """What goes into the activation, which may overwrite it."""
        assert self.positive is not None
        values = self._rows(values).detach().flatten(0, -2)
        self.positive += (values > 0).sum(0).cpu().numpy()
        self.inputs += len(values)

    def see_output(self, values: Tensor) -> None:
        """What comes out of the activation."""
        assert self._outputs is not None
        self._outputs.see(self._rows(values))

    def _rows(self, values: Tensor) -> Tensor:
        return values if self.unit.squeeze == "none" else values.flatten(1)


class Watch:
    """The SE blocks of a network, watched.

    Attributes:
        blocks: those that ran, in the order in which they did first.

    Args:
        units: what to watch.
        classes: K.
        correlation: whether to keep how gates vary together.
    """

    def __init__(self, units: Sequence[SEUnit], classes: int, correlation: bool) -> None:
        self._all = [WatchedBlock(unit, classes, correlation) for unit in units]
        self.blocks: list[WatchedBlock] = []
        # Whose excitation is being computed: modules such as activations may be shared among blocks.
        self._current: WatchedBlock | None = None
        self._open = False

    def __getitem__(self, name: str) -> WatchedBlock:
        return next(block for block in self._all if block.unit.name == name)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks on the blocks as long as this lasts."""
        handles: list[RemovableHandle] = []
        try:
            for block in self._all:
                handles += self._attach(block)
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Only as long as this lasts is anything seen: the network may run for other ends too."""
        self._open = True
        try:
            yield
        finally:
            self._open, self._current = False, None

    def finish(self, labels: Tensor, indices: Counts) -> list[tuple[Tensor, Tensor]]:
        """Put a batch into the figures; of each block in `blocks` gates and squeezes (N, C).

        Raises:
            GatesError: no block ran, or others than in the first batch; a value is not finite.
        """
        ran = [block for block in self._all if block.calls]
        if not ran or set(ran) != set(self.blocks):
            odd = sorted(block.unit.name for block in set(ran) ^ set(self.blocks)) or [b.unit.name for b in self._all]
            raise GatesError(
                f"SE blocks did not run in each batch, such as {odd[0]!r}; record a network whose forward pass runs "
                f"the same blocks each time"
            )
        return [block.finish(labels, indices) for block in self.blocks]

    def _attach(self, block: WatchedBlock) -> Iterator[RemovableHandle]:
        unit = block.unit

        def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self._open:
                return
            self._current = block
            if block not in self.blocks:
                self.blocks.append(block)
            block.see_squeeze(args[0])

        def see_input(module: nn.Module, args: tuple[Any, ...]) -> None:
            if self._current is block:
                block.see_input(args[0])

        def see_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self._current is block:
                block.see_output(output)

        def see_gates(gates: Tensor) -> None:
            if self._current is block:
                block.see_gates(gates)
                self._current = None

        yield (unit.reduce or unit.expand).register_forward_pre_hook(begin)
        if block.outputs is not None and unit.activation is not None:
            yield unit.activation.register_forward_pre_hook(see_input)
            yield unit.activation.register_forward_hook(see_output)
        yield watch_gates(unit, see_gates)


def _gate_edges(unit: SEUnit) -> Floats:
    gate, gain = type(unit.gate).__name__.lower(), unit.gain
    for names, low in ((("sigmoid", "hardsigmoid", "hardsigmoidjit", "hardsigmoidme"), 0.0), (("tanh",), -1.0)):
        if gate in names:
            return bounded_edges(low * gain, gain)
    return unbounded_edges(negative=gate not in ("relu", "relu6") or gain < 0)
