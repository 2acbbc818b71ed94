"""Capture of CUDA graphs on a side stream, with the cleanup after a capture that fails."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

__all__ = ["CudaGraphs", "Graph", "GraphBackend"]

T = TypeVar("T")


class Graph(Protocol):
    """A recorded graph."""

    def replay(self) -> None:
        """Run the graph on the current stream, without synchronizing."""

    def reset(self) -> None:
        """Release the graph and its memory."""


class GraphBackend(Protocol):
    """Records graphs: `CudaGraphs`, or a substitute in tests."""

    device: torch.device

    def warm_up(self, function: Callable[[], T]) -> T:
        """Run a function on the stream on which `capture` records."""

    def capture(self, function: Callable[[], T], share: Graph | None) -> tuple[Graph, T]:
        """Record a function without running its work.

        Args:
            function: called once; `Graph.replay` writes the tensors in its result.
            share: a graph whose memory pool to share. The two must not run concurrently; each overwrites the other's
                memory in the pool, except outputs.

        Raises:
            Exception: any exception of the function or the recording; nothing is recorded then.
        """


class CudaGraphs:
    """`torch.cuda.CUDAGraph`, recorded on one side stream.

    Args:
        device: the CUDA device of all work.
    """

    def __init__(self, device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        # Autograd accumulates gradients on the stream of the first forward pass. This must be the capture stream, so
        # warm-up runs there too.
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def warm_up(self, function: Callable[[], T]) -> T:
        """Run a function on the side stream, ordered with the work of the current stream."""
        with self._side_stream():
            return function()

    def capture(self, function: Callable[[], T], share: Graph | None) -> tuple[Graph, T]:
        """Record a function on the side stream. See `GraphBackend.capture`."""
        generator = torch.cuda.default_generators[self.device.index]
        pool = share.pool() if isinstance(share, torch.cuda.CUDAGraph) else torch.cuda.graph_pool_handle()
        fresh = generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads that pin memory or watch a process group also call CUDA, which the mode "global" forbids.
            recording = torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local")
            with self._side_stream(), _no_garbage_collection(), recording:
                outputs = function()
        except BaseException:
            graph.reset()  # and its part of the pool
            _leave_pool(pool, self.device)
            _leave_capture_mode(generator, fresh, self.device)
            raise
        return graph, outputs

    @contextmanager
    def _side_stream(self) -> Iterator[None]:
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            try:
                # If `torch.cuda.graph` fails to end a capture, it leaves its stream current; this block restores it.
                with torch.cuda.stream(self._stream):
                    yield
            finally:
                current.wait_stream(self._stream)


def _leave_pool(pool: Any, device: torch.device) -> None:
    """Repair the allocator after a failed capture.

    Before PyTorch 2.14, `CUDAGraph.reset` does not do this: the allocator still waits for the end of the capture, and
    keeps all memory that was used on several streams.
    """
    try:
        torch._C._cuda_endAllocateToPool(device.index, pool)
    except RuntimeError:  # already ended
        return
    torch._C._cuda_releasePool(device.index, pool)


def _leave_capture_mode(generator: torch.Generator, fresh: torch.Generator, device: torch.device) -> None:
    """Repair the random generator after a failed capture.

    Up to PyTorch 2.11 it stays in capture mode, and every later dropout raises "Offset increment outside graph
    capture". Its state object is replaced only in that case, because earlier graphs refer to the old one.
    """
    state = generator.get_state()
    try:
        torch.empty((), device=device).uniform_()
    except RuntimeError:
        generator.graphsafe_set_state(fresh)
    generator.set_state(state)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect garbage before the block, and not within it.

    Reference cycles may keep autograd nodes of other streams alive. A collection during a capture may free graphs,
    events or pinned memory, whose CUDA calls are not permitted then.
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
