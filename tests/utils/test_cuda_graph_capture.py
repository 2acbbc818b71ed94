"""The calls that capture a CUDA graph, and those that clean up after a capture that fails; without a GPU."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from senet.utils.cuda_graph_capture import CudaGraphs


class FakeCuda:
    """Notes calls in their order. What a real GPU would do in them is decided by attributes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.stuck = False  # whether a failed capture leaves the generator in capture mode
        self.ended = True  # whether `reset` ends the allocations of a failed capture
        self.end_fails = False  # whether ending a capture raises an error of its own
        self.current = SimpleNamespace(wait_stream=lambda stream: self.note("current waits"))
        self.side = SimpleNamespace(wait_stream=lambda stream: self.note("side waits"))
        state = torch.zeros(16, dtype=torch.uint8)
        self.generator = SimpleNamespace(
            clone_state=lambda: "fresh",
            get_state=lambda: state,
            set_state=lambda given: self.note("set state" if given is state else "set another state"),
            graphsafe_set_state=lambda given: self.note(f"generator takes {given} state"),
        )
        fake = self

        class CUDAGraph:
            def pool(self) -> tuple[int, int]:
                return (7, 0)

            def reset(self) -> None:
                fake.note("reset")

        self.CUDAGraph = CUDAGraph
        for name in ("stream", "device", "graph", "CUDAGraph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self.side)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 3))
        monkeypatch.setattr(torch.cuda, "default_generators", [None, self.generator])
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_pool, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *pool: self.note(f"release {pool}"), raising=False)
        monkeypatch.setattr(torch, "empty", lambda *size, device: SimpleNamespace(uniform_=self.draw))

    def note(self, call: str) -> None:
        self.calls.append(call)

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        assert stream is self.side
        self.note("on side")
        yield
        self.note("off side")

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        assert device == torch.device("cuda", 1)
        yield

    @contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert stream is self.side
        self.note(f"begin {pool} {capture_error_mode}")
        try:
            yield
        finally:
            self.note("end")
            if self.end_fails:
                raise RuntimeError("operation failed due to a previous error during capture")

    def end_pool(self, device: int, pool: Any) -> None:
        if self.ended:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.note(f"end pool {device} {pool}")

    def draw(self) -> None:
        self.note("draw")
        if self.stuck:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def graphs() -> CudaGraphs:
    return CudaGraphs(torch.device("cuda", 1))


def test_warming_up_takes_place_on_the_stream_of_the_capture(cuda: FakeCuda) -> None:
    assert graphs().warm_up(lambda: cuda.note("step")) is None
    assert cuda.calls == ["side waits", "on side", "step", "off side", "current waits"]


def test_a_capture_is_on_the_side_stream_without_garbage_collection(cuda: FakeCuda) -> None:
    backend = graphs()
    graph, (output, enabled) = backend.capture(lambda: (3, gc.isenabled()), None)
    assert (output, enabled, gc.isenabled()) == (3, False, True)
    assert cuda.calls == ["side waits", "on side", "begin (0, 3) thread_local", "end", "off side", "current waits"]
    backend.capture(lambda: None, graph)
    assert "begin (7, 0) thread_local" in cuda.calls


@pytest.mark.parametrize("end_fails", [False, True])
def test_after_a_failure_the_graph_is_reset_and_streams_and_generator_are_as_before(
    cuda: FakeCuda, end_fails: bool
) -> None:
    cuda.end_fails = end_fails

    def wait() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="previous error" if end_fails else "not permitted"):
        graphs().capture(wait, None)
    assert gc.isenabled()
    assert cuda.calls[-4:] == ["current waits", "reset", "draw", "set state"]


def test_what_older_versions_leave_after_a_failure_is_repaired(cuda: FakeCuda) -> None:
    """The allocator still allocates to the graph's pool, and the generator is in capture mode."""
    cuda.stuck, cuda.ended = True, False
    with pytest.raises(ZeroDivisionError):
        graphs().capture(lambda: 1 // 0, None)
    repairs = ["end pool 1 (0, 3)", "release (1, (0, 3))", "draw", "generator takes fresh state", "set state"]
    assert cuda.calls[cuda.calls.index("reset") + 1 :] == repairs
