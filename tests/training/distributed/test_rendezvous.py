"""How processes find each other; launches of torchrun itself are in `test_distributed.py`."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from senet.training.distributed import rendezvous as meeting
from senet.training.distributed.processes import Processes
from senet.training.distributed.rendezvous import Launch, meet
from senet.utils.errors import PeerLostError
from tests.training.runs import assert_same, run

CPU = torch.device("cpu")


@pytest.fixture
def store() -> Any:
    return torch.distributed.HashStore()  # type: ignore[attr-defined]


def together(store: Any, world: int, ranks: list[int]) -> list[str]:
    """What the processes of some ranks agree on, each a thread here."""
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda rank=rank: found.update({rank: meeting._agree(store, rank, world, 20)}))
        for rank in ranks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [found[rank] for rank in ranks]


def test_a_meeting_has_one_name_and_no_two_have_the_same(store: Any) -> None:
    first, second = together(store, 3, [2, 0, 1]), together(store, 3, [0, 1, 2])
    assert len(set(first)) == len(set(second)) == 1
    assert set(first) != set(second)


def test_who_asked_before_a_restart_does_not_count(store: Any) -> None:
    """The first process answers it, and keeps waiting for the process in its place."""
    store.set("senet/asks/1", "senet/of one that is gone")
    assert len(set(together(store, 2, [0, 1]))) == 1


def test_not_all_come(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together(store, 2, [0, 1])
    with pytest.raises(torch.distributed.DistStoreError, match="1 of 2 came within 0.1 s"):
        meeting._agree(store, 0, 2, 0.1)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        PeerLostError, match=r"the 2 processes do not find each other at 127.0.0.1:0 \(.*start all of them"
    ):
        meet(CPU, 1)


@pytest.mark.slow
def test_a_launch_resumes_only_its_own_runs(tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that torchrun starts in place of another one."""
    run(tmp_path / "whole", "epochs=2")
    run(tmp_path / "again", "epochs=2")
    monkeypatch.setattr("senet.training.loop.open_processes", lambda *_: Processes(CPU, launch=Launch(store)))
    with pytest.raises(ValueError, match="in use: add --resume to resume its run"):
        run(tmp_path / "again", "epochs=2")
    with pytest.raises(ValueError, match="in use: add --resume to resume its run"):
        run(tmp_path / "again", "epochs=2")  # what was refused is refused again
    run(tmp_path / "again", "epochs=2", resume=True)  # is complete, and nothing is begun
    with pytest.raises(ValueError, match="in use: add --resume to resume its run"):
        run(tmp_path / "again", "epochs=2")
    run(tmp_path / "own", "epochs=2")
    run(tmp_path / "own", "epochs=2")
    assert_same(tmp_path / "own", tmp_path / "whole")


def test_a_process_alone_asks_the_store_of_its_launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not Launch.of_this_process(1).has_begun(tmp_path)
    server = torch.distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5)
    )
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(server.port))
    Launch.of_this_process(5).begin(tmp_path / "a" / ".." / "run")
    assert Launch.of_this_process(5).has_begun(tmp_path / "run")
    assert not Launch.of_this_process(5).has_begun(tmp_path)
