"""One process, and the errors of several; runs of several processes are in `test_distributed.py`."""

import os
import signal
import traceback

import pytest
import torch
from torch import nn

import senet
from senet import TrainingError
from senet.training.distributed import data_parallel as parallel
from senet.training.distributed import processes
from senet.training.distributed.errors import (
    Reporting,
    explain_peer_loss,
    final_error,
    is_reported_by_peer,
    mark_shared,
    reporting,
)
from senet.training.distributed.processes import Processes, open_processes
from senet.training.distributed.rendezvous import Launch
from senet.training.signals import StopRequest
from senet.utils.errors import PeerLostError
from senet.utils.ranks import is_alone, is_first
from tests.training.small import small_trainer

CPU = torch.device("cpu")


def test_one_process_has_all_and_is_not_wrapped() -> None:
    alone = Processes(CPU)
    assert (alone.rank, alone.world_size, alone.is_distributed, alone.is_first) == (0, 1, False, True)
    assert alone.sum_numbers([1.5, 2]) == [1.5, 2]
    assert alone.batch_sizes(7, 2.5) == ([7], 2.5)
    assert alone.gather("this") == ["this"]
    assert alone.from_first(lambda: 3) == 3
    trainer = small_trainer()
    assert trainer._step.forward is trainer.model


def test_one_process_opens_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not open_processes(CPU).is_distributed
    assert not torch.distributed.is_initialized()


def test_several_processes_train_on_a_cpu_or_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_alone()
    assert not is_first()
    with pytest.raises(ValueError, match="several processes train on device=cpu or device=cuda, got 'mps'"):
        open_processes(torch.device("mps"))


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_no_such_timeout(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be seconds above 0"):
        open_processes(CPU, timeout)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[/p/gloo/pair.cc:545] Timed out waiting 5000ms for recv operation to complete", "within 7 s"),
        ("Application timeout caused pair closure", "within 7 s"),
        (
            "[/p/gloo/pair.cc:545] Connection closed by peer [127.0.0.1]:5. More",
            "ended (Connection closed by peer [127",
        ),
        ("[/p/gloo/pair.cc:152] timed out connecting: Connection refused", "ended (timed out connecting"),
        ("shapes do not fit", ""),
        ("a download timed out: connection refused", ""),
    ],
)
def test_errors_of_gloo_that_another_process_caused(text: str, part: str) -> None:
    """The texts that PyTorch 2.14 raises, without a class of their own."""
    found = explain_peer_loss(RuntimeError(text), 7)
    assert (part in found) if part else found == ""
    assert "/p/" not in found


@pytest.mark.parametrize("name", ["DistError", "DistBackendError", "DistNetworkError", "DistStoreError"])
def test_errors_of_a_class_of_torch_distributed_need_no_known_message(name: str) -> None:
    kind = getattr(torch.distributed, name)
    assert explain_peer_loss(kind("any words"), 7) == (
        "another process ended (any words); see its own error, if it printed one"
    )
    assert "within 7 s" in explain_peer_loss(kind("wait timeout after 7000ms"), 7)


def test_a_traceback_does_not_show_who_reports_an_error() -> None:
    assert reporting(ValueError("lr")) == Reporting(shared=False, by_peer=False)
    for kind in (ValueError, OSError, TrainingError, torch.OutOfMemoryError):
        error = mark_shared(kind("why"), 1)
        assert reporting(error) == Reporting(shared=True, by_peer=True)
        end = final_error("why", error, 1, 2)
        assert (str(end), reporting(end)) == ("why", Reporting(shared=True, by_peer=True))
        assert "".join(traceback.format_exception_only(error)).splitlines()[1:] == []
    # Notes of other code change nothing.
    noted = ValueError("lr")
    noted.add_note("another process reports it")
    noted.add_note("all processes came to it alike")
    assert not is_reported_by_peer(noted)
    assert str(final_error("lr", noted, 1, 2)) == "process 1 of 2: lr"


def test_which_process_reports_an_error() -> None:
    alike = [mark_shared(TrainingError("the loss is nan"), rank) for rank in range(3)]
    assert [is_reported_by_peer(error) for error in alike] == [False, True, True]
    assert [is_reported_by_peer(final_error("why", error, rank, 3)) for rank, error in enumerate(alike)] == [
        False,
        True,
        True,
    ]
    # Two processes report a lost one: the first may be the one that is lost.
    gone = [final_error("why", PeerLostError("gone"), rank, 3) for rank in range(3)]
    assert [is_reported_by_peer(error) for error in gone] == [False, False, True]
    own = final_error("no image", TrainingError("no image"), 2, 3)
    assert not is_reported_by_peer(own)
    assert str(own) == "process 2 of 3: no image"


def test_a_signal_ends_the_run_once_all_processes_know_of_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with StopRequest(shared=True, grace=60) as stop:
            for _ in range(2):  # the second one is the first
                os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.received, stop.signal) == (signal.SIGTERM, None)
            stop.check()
            stop.signal = signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # until it has printed its error
    finally:
        signal.signal(signal.SIGTERM, before)


def test_synchronized_batch_norms_are_as_before_afterwards() -> None:
    model = senet.create_model("se_resnet20", num_classes=3)
    kinds = [type(module) for module in model.modules()]
    with parallel.synchronized(model, Processes(CPU)):
        inside = [type(module) for module in model.modules()]
        assert all(module.synchronized for module in model.modules() if hasattr(module, "synchronized"))
    assert inside != kinds
    assert [type(module) for module in model.modules()] == kinds
    assert not any(module.synchronized for module in model.modules() if hasattr(module, "synchronized"))


class Odd(nn.BatchNorm2d):
    """A subclass, whose forward may differ."""


def test_synchronizes_no_batch_norm_that_it_does_not_know() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Odd(4), nn.BatchNorm2d(4))
    with (
        pytest.raises(ValueError, match="sync_bn=true cannot synchronize '1', which is a Odd, .*leave out sync_bn"),
        parallel.synchronized(model, Processes(CPU)),
    ):
        pass
    assert type(model[2]) is nn.BatchNorm2d


def test_processes_of_different_runs_and_of_too_small_batches_are_refused() -> None:
    this = {"recipe": {"lr": 1}, "network": "a", "rounding": 1}
    parallel.check_same_run(this, [{"recipe": {"lr": 1}, "network": "a"}])
    with pytest.raises(ValueError, match="process 1 has another recipe than others: start all with the same command"):
        parallel.check_same_run(this, [{"recipe": {"lr": 1}, "network": "a"}, {"recipe": {"lr": 2}, "network": "a"}])
    parallel.check_batch_size(2, 2)
    with pytest.raises(ValueError, match="a batch of 3 images has none for some of 4 processes; give batch=4 or more"):
        parallel.check_batch_size(3, 4)


def test_only_a_process_group_that_was_opened_here_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_group(*args: object) -> Launch:  # of one process, instead of several that meet
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        return Launch()

    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
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
        assert open_processes(CPU) is not opened
        processes.close_processes()
        processes.close_processes()
        assert not torch.distributed.is_initialized()
    finally:
        processes.close_processes()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
