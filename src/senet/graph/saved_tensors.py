"""Activation memory: the tensors that autograd saves for backward."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from senet.graph.example_inputs import Example
from senet.graph.tensor_kinds import prepare_forward
from senet.utils.modes import evaluating

__all__ = ["SavedTensors", "saved_bytes"]


def saved_bytes(model: nn.Module, example: Example) -> int:
    """Count the bytes that a forward pass in training saves for backward, in a run without values.

    Each storage counts once, however many operations save it; parameters and buffers do not count. The run is not
    traced: batch norm with SE is not fused where hooks or a dispatch mode observe it.

    Args:
        model: the network.
        example: its input, see `senet.graph.recorder.trace`.

    Raises:
        TypeError: the example is not an input.
        Exception: whatever the network's code raises on this input, or where it reads values.
    """
    saved = SavedTensors()
    with _training(model), prepare_forward(model, example, "fake") as run, torch.enable_grad():
        with saved.watching():
            output = run.forward()
        found = saved.nbytes(run.tensors.values())
        del output  # until here it held the graph, and so what autograd saved
    return found


class SavedTensors:
    """Record what autograd saves in a forward pass, for as long as the graph of its output holds it."""

    def __init__(self) -> None:
        self._held: weakref.WeakSet[_Held] = weakref.WeakSet()

    def watching(self) -> saved_tensors_hooks:
        """Return the context manager for the forward pass."""
        return saved_tensors_hooks(self._pack, lambda held: held.tensor)

    def nbytes(self, excluded: Iterable[Tensor]) -> int:
        """Return the bytes of the storages that the graph holds now, each once.

        Args:
            excluded: tensors whose storages do not count, such as parameters.
        """
        sizes = {_storage_id(held.tensor): held.tensor.untyped_storage().nbytes() for held in self._held}
        others = {_storage_id(tensor) for tensor in excluded}
        return sum(nbytes for storage, nbytes in sizes.items() if storage not in others)

    def _pack(self, tensor: Tensor) -> "_Held":
        held = _Held(tensor.detach())  # an output that knew its origin would keep itself alive
        self._held.add(held)
        return held


class _Held:
    """A tensor that is saved for backward: alive for as long as the graph holds it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _storage_id(tensor: Tensor) -> int:
    """Identify a storage among those that are alive, even one without an address."""
    return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Set training mode; replace cumulative averages of batch statistics, which read the number of batches."""
    averaging = [module for module in model.modules() if getattr(module, "momentum", 0.0) is None]
    with evaluating(model):  # whose end restores each module's mode
        model.train()
        for module in averaging:
            module.momentum = 0.1  # type: ignore[assignment]
        try:
            yield
        finally:
            for module in averaging:
                module.momentum = None  # type: ignore[assignment]
