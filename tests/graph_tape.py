"""A stand-in for CUDA graphs on a CPU: it records operations on tensors, and repeats them without Python.

What it has in common with a CUDA graph is what makes mistakes visible:

- A capture changes nothing: tensors and the random generator are as before it.
- A replay repeats operations on the very tensors of the capture. Python is not run again: its numbers, branches and
  attributes are those of the capture.
- Waiting for the device is an error within a capture, and so is making a tensor from a Python number.
- A replay of a graph that was reset is an error.

Operations that bypass PyTorch's dispatcher are not recorded: kernels of Inductor on a CPU, and numpy.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_leaves

from senet.utils.cuda_graph_capture import Graph

T = TypeVar("T")

# Their shapes or values have to be known on the host, or they copy from memory that is not pinned.
_WAITING = {
    "_local_scalar_dense",
    "item",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_consecutive",
    "lift_fresh",
}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Any, Any]] = {}  # storages of arguments, and what they held

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in _WAITING:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}\nand more lines")
        # All arguments: the schema of batch norm does not say that it writes its statistics.
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.before.setdefault(storage._cdata, (storage, storage.clone()))
        result = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, result))
        return result


class TapeGraph:
    """Recorded operations."""

    def __init__(self, operations: list[tuple[Any, Any, Any, Any]]) -> None:
        self._operations = operations
        self.replays, self.released = 0, False

    def replay(self) -> None:
        assert not self.released, "replay of a graph that was reset"
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, recorded in self._operations:
                repeated = func(*args, **kwargs)
                for old, new in zip(tree_leaves(recorded), tree_leaves(repeated), strict=True):
                    if isinstance(old, Tensor) and old.untyped_storage()._cdata != new.untyped_storage()._cdata:
                        with torch.inference_mode(old.is_inference()):
                            old.copy_(new)

    def reset(self) -> None:
        self.released = True
        self._operations = []


class TapeGraphs:
    """A backend of `CapturedStep` that records in `TapeGraph`s."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.graphs: list[TapeGraph] = []
        self.warmed = 0

    def warm_up(self, function: Callable[[], T]) -> T:
        self.warmed += 1
        return function()

    def capture(self, function: Callable[[], T], share: Graph | None) -> tuple[Graph, T]:
        assert share is None or (isinstance(share, TapeGraph) and not share.released)
        state = torch.get_rng_state()
        recorder = _Recorder()
        try:
            with recorder:
                outputs = function()
        finally:
            torch.set_rng_state(state)
            for storage, held in recorder.before.values():
                storage.copy_(held)
        graph = TapeGraph(recorder.operations)
        self.graphs.append(graph)
        return graph, outputs
