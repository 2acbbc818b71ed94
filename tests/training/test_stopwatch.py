import pytest
import torch

from senet.training import stopwatch
from senet.training.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times that are read, one after the other."""
    times: list[float] = []
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: times.pop(0))
    return times


def test_laps_follow_each_other_and_add_up(clock: list[float]) -> None:
    clock += [0, 1, 3, 10, 11, 15]
    watch = Stopwatch()
    watch.lap("data")
    watch.lap("forward")
    watch.restart()
    watch.lap("data")
    watch.lap("backward")
    assert watch.seconds == {"data": 2, "forward": 2, "backward": 4}


def test_a_block_is_measured_though_it_fails(clock: list[float]) -> None:
    clock += [0, 5, 7]
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.measure("evaluation"):
        raise KeyError
    assert watch.seconds == {"evaluation": 2}


@pytest.mark.parametrize(("synchronize", "there", "waits"), [(True, True, 2), (True, False, 0), (False, True, 0)])
def test_waits_for_a_gpu_if_asked_to(
    monkeypatch: pytest.MonkeyPatch, synchronize: bool, there: bool, waits: int
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(1))
    watch = Stopwatch(synchronize)
    watch.lap("forward")
    with watch.measure("evaluation"):
        pass
    assert len(waited) == waits
