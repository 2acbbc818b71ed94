"""The GPU of each process, and the backends. Choosing them needs no GPU."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from senet.training.distributed import processes
from senet.training.distributed import rendezvous as meeting
from senet.training.distributed.errors import is_reported_by_peer
from senet.training.distributed.gpus import (
    ProcessGPU,
    backend_for,
    check_gpus,
    describe_gpu,
    prepare_nccl,
    select_gpu,
)
from senet.training.distributed.processes import Processes, open_processes
from tests.helpers import assert_close
from tests.training.test_distributed import TWO, Launched, metrics, weights

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NCCL = "cpu:gloo,cuda:nccl"


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with four GPUs, of which the selected ones are kept."""
    selected: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", selected.append)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"GPU-{device.index}"))
    return selected


@pytest.mark.parametrize(("nccl", "expected"), [(True, NCCL), (False, "cpu:gloo,cuda:gloo")])
def test_backends(monkeypatch: pytest.MonkeyPatch, nccl: bool, expected: str) -> None:
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    assert backend_for(CUDA) == backend_for(torch.device("cuda", 3)) == expected
    assert backend_for(CPU) == "gloo"


@pytest.mark.parametrize(("local", "index"), [(0, 0), (3, 3), (5, 1)])
def test_each_process_has_the_gpu_of_its_rank_on_the_machine(
    four: list[torch.device], monkeypatch: pytest.MonkeyPatch, local: int, index: int
) -> None:
    monkeypatch.setenv("RANK", str(8 + local))
    monkeypatch.setenv("LOCAL_RANK", str(local))
    assert select_gpu() == torch.device("cuda", index)
    assert four == [torch.device("cuda", index)]
    assert describe_gpu(torch.device("cuda", index)).gpu == f"GPU-{index}"


@pytest.mark.parametrize("value", [None, "", "one", "-1"])
def test_a_process_without_a_rank_on_its_machine(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if value is not None:
        monkeypatch.setenv("LOCAL_RANK", value)
    with pytest.raises(ValueError, match=f"LOCAL_RANK='{value or ''}' .* start processes with torchrun"):
        select_gpu()


def test_fewer_gpus_than_processes_are_named_with_both_numbers() -> None:
    check_gpus([ProcessGPU("a", "1"), ProcessGPU("a", "2"), ProcessGPU("b", "1")])
    found = [ProcessGPU("a", "1"), ProcessGPU("a", "2"), *[ProcessGPU("b", name) for name in "12341234"]]
    message = "^8 processes on b have 4 GPUs: .*--nproc-per-node 4, .*CUDA_VISIBLE_DEVICES, or set device=cpu"
    with pytest.raises(ValueError, match=message):
        check_gpus(found)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("NVIDIA GeForce RTX 4090, 535.129.03\nNVIDIA GeForce RTX 4090, 535.129.03\n", "1"),
        ("NVIDIA GeForce RTX 4090, 550.40.07\nNVIDIA GeForce RTX 4090, 550.40.07\n", None),
        ("NVIDIA GeForce RTX 4090, 535.129.03\n", None),  # one GPU communicates with none
        ("NVIDIA H100 80GB HBM3, 535.129.03\nNVIDIA H100 80GB HBM3, 535.129.03\n", None),
        ("NVIDIA-SMI has failed\n", None),
        ("", None),
        (None, None),
    ],
)
def test_gpus_whose_driver_wrongly_offers_direct_communication(
    monkeypatch: pytest.MonkeyPatch, gpus: str | None, expected: str | None
) -> None:
    def query(command: list[str], **options: Any) -> Any:
        if gpus is None:
            raise FileNotFoundError(command[0])
        return SimpleNamespace(stdout=gpus)

    monkeypatch.setattr(subprocess, "run", query)
    monkeypatch.setenv("NCCL_P2P_DISABLE", "0")  # the user's own stays
    monkeypatch.setenv("NCCL_IB_DISABLE", "any")
    monkeypatch.delenv("NCCL_IB_DISABLE")
    prepare_nccl()
    assert os.environ.get("NCCL_IB_DISABLE") == expected
    assert os.environ["NCCL_P2P_DISABLE"] == "0"
    os.environ.pop("NCCL_IB_DISABLE", None)


class Group:
    """Stands for the process group of eight processes on two machines, and keeps what is asked of it."""

    def __init__(self, patch: pytest.MonkeyPatch, gpus_of_others: list[str]) -> None:
        self.asked: list[Any] = []
        self.others = gpus_of_others
        self.config = NCCL
        patch.setattr(torch.distributed, "init_process_group", self.init)
        patch.setattr(torch.distributed, "get_backend_config", lambda: self.config)
        patch.setattr(torch.distributed, "all_gather_object", self.gather)
        patch.setattr(torch.distributed, "all_reduce", self.reduce)
        patch.setattr(torch.distributed, "get_world_size", lambda: 2)
        patch.setattr(torch.distributed, "get_rank", lambda: 1)
        patch.setattr(torch.distributed, "PrefixStore", type("PrefixStore", (), {"__init__": lambda *args: None}))
        patch.setattr(meeting, "_agree", lambda *args: "a name")
        # A function of the same name hides the module.
        module = sys.modules["torch.distributed.rendezvous"]
        patch.setattr(module, "rendezvous", lambda *args, **options: iter([(object(), 1, 2)]))

    def init(self, backend: str, **options: Any) -> None:
        self.asked.append((backend, options["rank"], options["world_size"]))

    def gather(self, found: list[Any], mine: ProcessGPU) -> None:
        found[:] = [*[ProcessGPU(mine.machine, gpu) for gpu in self.others], mine]

    def reduce(self, values: torch.Tensor) -> None:
        self.asked.append(values.device)
        values.mul_(2)


@pytest.fixture
def second(four: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The second of two processes on four GPUs."""
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(meeting, "_has_store", lambda: False)
    monkeypatch.setattr(processes, "_opened", None)
    monkeypatch.setattr(processes, "prepare_nccl", lambda: None)
    return monkeypatch


def test_processes_with_gpus_meet_by_nccl_and_gloo_after_their_gpu_is_selected(
    second: pytest.MonkeyPatch, four: list[torch.device]
) -> None:
    group = Group(second, ["GPU-0"])
    found = open_processes(CUDA)
    assert group.asked == [(NCCL, 1, 2)]
    assert four == [torch.device("cuda", 1)]
    assert (found.device, found.rank, found.world_size, found.local_world_size) == (torch.device("cuda", 1), 1, 2, 2)


def test_processes_that_share_a_gpu_all_end_and_one_reports_it(second: pytest.MonkeyPatch) -> None:
    second.setattr(torch.cuda, "device_count", lambda: 1)
    Group(second, ["GPU-0"])
    with pytest.raises(ValueError, match="^2 processes on .* have 1 GPUs: each needs one of its own") as caught:
        open_processes(CUDA)
    assert is_reported_by_peer(caught.value)  # the first one reports it


def test_sums_of_numbers_do_not_wait_for_a_gpu(second: pytest.MonkeyPatch) -> None:
    """They are gloo's, on the CPU; a tensor on the device is summed there."""
    group = Group(second, [])
    two = Processes(torch.device("meta"), rank=1, world_size=2)
    assert two.sum_numbers([1.5, 2]) == [3, 4]
    values = torch.ones(3)
    assert two.summed(values).tolist() == [2, 2, 2]
    assert values.tolist() == [1, 1, 1]
    assert group.asked == [CPU, CPU]
    group.config = "meta:nccl"  # a process group without a backend for the CPU
    assert two.summed(torch.ones(3, device="meta")).device.type == "meta"
    assert group.asked[2].type == "meta"
    with pytest.raises(NotImplementedError, match="meta"):  # it goes to the device, and would come back
        two.summed(torch.ones(3))


@pytest.mark.parametrize(("device", "expected"), [(torch.device("cuda", 1), [torch.device("cuda", 1)]), (CPU, None)])
def test_gradients_are_summed_on_the_processs_own_gpu(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, expected: Any
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(processes, "DistributedDataParallel", lambda model, **options: given.update(options) or model)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *args: None)
    two = Processes(device, rank=1, world_size=2)
    two.data_parallel(nn.Linear(2, 2), unused=True)
    assert given == {
        "device_ids": expected,
        "bucket_cap_mb": 25,
        "gradient_as_bucket_view": True,
        "broadcast_buffers": False,
        "find_unused_parameters": True,
    }


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("sync_bn", ["true", "false"])
def test_two_gpus_train_as_one(tmp_path: Path, sync_bn: str) -> None:
    options = ("--set", "epochs=2", "--set", "device=cuda", "--set", "lr=0.001", "--set", f"sync_bn={sync_bn}")
    two = Launched(tmp_path / "two", *options, how=TWO, log="log two")
    assert two.end() == 0, two.text
    one = Launched(tmp_path / "one", *options, how=("--standalone",), log="log one")
    assert one.end() == 0, one.text
    losses = [[line["loss"] for line in metrics(tmp_path / name)] for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    if sync_bn == "true":
        for key, value in weights(tmp_path / "one").items():
            assert_close(weights(tmp_path / "two")[key].double(), value.double(), 0.05)


@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="needs one GPU")
def test_two_processes_on_one_gpu_are_refused(tmp_path: Path) -> None:
    run = Launched(tmp_path / "run", "--set", "device=cuda", how=TWO)
    assert run.end() == 1
    assert run.text.count(" have 1 GPUs: each needs one of its own") == 1
