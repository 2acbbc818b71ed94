"""One process, and what is told of several; several at work are in `test_distributed.py`."""

import builtins
import os
import signal
import traceback
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet import TrainingError
from senet.training.distributed import data_parallel as parallel
from senet.training.distributed import processes
from senet.training.distributed.errors import (
    PeerLostError,
    Reporting,
    ended,
    explain_loss,
    is_quiet,
    reporting,
    shared,
)
from senet.training.distributed.processes import Processes, open_processes
from senet.training.distributed.rendezvous import Launch, is_alone, is_first
from senet.training.signals import StopRequest
from tests.training.small import small_trainer

CPU = torch.device("cpu")


def test_one_process_has_all_and_is_not_wrapped() -> None:
    alone = Processes(None, CPU)
    assert (alone.rank, alone.world, alone.many, alone.first) == (0, 1, False, True)
    assert alone.sum([1.5, 2]) == [1.5, 2]
    assert alone.shares(7, 2.5) == ([7], 2.5)
    assert alone.gather("this") == ["this"]
    assert alone.from_first(lambda: 3) == 3
    trainer = small_trainer()
    assert trainer._forward is trainer.model


def test_one_process_needs_no_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_accelerate(monkeypatch)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not open_processes(CPU).many


def test_several_processes_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_accelerate(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_alone()
    assert not is_first()
    with pytest.raises(ValueError, match=r"several processes needs accelerate: pip install -e '.*\[train\]'"):
        open_processes(CPU)
    with pytest.raises(ValueError, match="several processes train on device=cpu or device=cuda, got 'mps'"):
        open_processes(torch.device("mps"))


def hide_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def hidden(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("accelerate"):
            raise ImportError(name)
        return there(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", hidden)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_no_such_timeout(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be seconds above 0"):
        open_processes(CPU, timeout)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[/p/gloo/pair.cc:545] Timed out waiting 5000ms for recv operation to complete", "within 7 s"),
        ("[/p/gloo/pair.cc:545] Connection closed by peer [127.0.0.1]:5. More", "gone (Connection closed by peer [127"),
        ("[/p/gloo/pair.cc:152] timed out connecting: Connection refused", "gone (timed out connecting"),
        ("shapes do not fit", ""),
    ],
)
def test_what_pytorch_says_of_other_processes(text: str, part: str) -> None:
    found = explain_loss(RuntimeError(text), 7)
    assert (part in found) if part else found == ""
    assert "/p/" not in found


@pytest.mark.parametrize("name", ["DistError", "DistBackendError", "DistNetworkError", "DistStoreError"])
def test_errors_of_a_class_of_torch_distributed_need_no_known_message(name: str) -> None:
    kind = getattr(torch.distributed, name)
    assert explain_loss(kind("any words"), 7) == "another process is gone (any words); it tells why, if it could"
    assert "within 7 s" in explain_loss(kind("wait timeout after 7000ms"), 7)


def test_who_reports_is_kept_apart_from_what_a_traceback_shows() -> None:
    assert reporting(ValueError("lr")) == Reporting(shared=False, quiet=False)
    for kind in (ValueError, OSError, TrainingError, torch.OutOfMemoryError):
        error = shared(kind("why"), 1)
        assert reporting(error) == Reporting(shared=True, quiet=True)
        end = ended("why", error, 1, 2)
        assert (str(end), reporting(end)) == ("why", Reporting(shared=True, quiet=True))
        assert "".join(traceback.format_exception_only(error)).splitlines()[1:] == []
    # What an exception of somebody else is annotated with changes nothing.
    noted = ValueError("lr")
    noted.add_note("another process tells of it")
    noted.add_note("all processes came to it alike")
    assert not is_quiet(noted)
    assert str(ended("lr", noted, 1, 2)) == "process 1 of 2: lr"


def test_who_tells_of_an_error() -> None:
    alike = [shared(TrainingError("the loss is nan"), rank) for rank in range(3)]
    assert [is_quiet(error) for error in alike] == [False, True, True]
    assert [is_quiet(ended("why", error, rank, 3)) for rank, error in enumerate(alike)] == [False, True, True]
    # Of a process that is gone two tell: it may be the first.
    gone = [ended("why", PeerLostError("gone"), rank, 3) for rank in range(3)]
    assert [is_quiet(error) for error in gone] == [False, False, True]
    own = ended("no image", TrainingError("no image"), 2, 3)
    assert not is_quiet(own)
    assert str(own) == "process 2 of 3: no image"


def test_a_signal_is_every_processes_once_they_know() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with StopRequest(shared=True, grace=60) as stop:
            for _ in range(2):  # the second one is the first
                os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.came, stop.signal) == (signal.SIGTERM, None)
            stop.check()
            stop.signal = signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # until it has told
    finally:
        signal.signal(signal.SIGTERM, before)


def test_synchronised_batch_norms_are_as_before_afterwards() -> None:
    model = senet.create_model("se_resnet20", num_classes=3)
    kinds = [type(module) for module in model.modules()]
    with parallel.synchronised(model, Processes(None, CPU)):
        inside = [type(module) for module in model.modules()]
        assert all(module.synchronised for module in model.modules() if hasattr(module, "synchronised"))
    assert inside != kinds
    assert [type(module) for module in model.modules()] == kinds
    assert not any(module.synchronised for module in model.modules() if hasattr(module, "synchronised"))


class Odd(nn.BatchNorm2d):
    """Whose way forward may be any."""


def test_synchronises_no_batch_norm_that_it_does_not_know() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Odd(4), nn.BatchNorm2d(4))
    with (
        pytest.raises(ValueError, match="sync_bn=true cannot synchronise '1', which is a Odd: .*leave out sync_bn"),
        parallel.synchronised(model, Processes(None, CPU)),
    ):
        pass
    assert type(model[2]) is nn.BatchNorm2d


def test_checks_of_processes_beside_each_other() -> None:
    this = {"recipe": {"lr": 1}, "network": "a", "rounding": 1}
    parallel.check_alike(this, [{"recipe": {"lr": 1}, "network": "a"}])
    with pytest.raises(ValueError, match="process 1 has another recipe than others: start all with the same command"):
        parallel.check_alike(this, [{"recipe": {"lr": 1}, "network": "a"}, {"recipe": {"lr": 2}, "network": "a"}])
    parallel.check_shares(2, 2)
    with pytest.raises(ValueError, match="a batch of 3 images has none for some of 4 processes; give batch=4 or more"):
        parallel.check_shares(3, 4)


def test_processes_are_left_only_where_they_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that somebody else made stays; one that was opened here does not, and the next run finds another."""
    accelerate = pytest.importorskip("accelerate")

    def make_group(*args: object) -> Launch:  # of one process, in place of several that meet
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        return Launch()

    # accelerate writes most of these back, so that all are set here, and restored.
    launch = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (launch | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "meet", make_group)
    try:
        make_group()
        processes.close_processes()
        assert torch.distributed.is_initialized()
        torch.distributed.destroy_process_group()
        opened = open_processes(CPU)
        assert open_processes(CPU) is opened
        assert torch.distributed.is_initialized()
        processes.close_processes()
        assert not torch.distributed.is_initialized()
        assert not accelerate.state.AcceleratorState._shared_state
        assert not accelerate.state.PartialState._shared_state
        assert open_processes(CPU) is not opened
        processes.close_processes()
        processes.close_processes()
        assert not torch.distributed.is_initialized()
    finally:
        processes.close_processes()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
