"""What `senet doctor` reports, and what it advises on a machine that is slow."""

import importlib
import os
import platform
import shutil
import types
import warnings
from typing import Any

import pytest
import torch

import senet
from senet.nn.fused import backends
from senet.utils import extras
from senet.utils.notices import announce
from tests.cli.helpers import answer, invoke

doctor: Any = importlib.import_module("senet.cli.doctor")  # not the function of the package


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled, and the machine is idle and whole."""
    monkeypatch.setattr(backends, "_compiles", lambda device: True)
    monkeypatch.setattr(backends, "_selected", {})
    monkeypatch.setattr(backends, "_state", {"choice": "auto"})
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.setattr(extras, "_is_installed", lambda package: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(total=2**33))
    monkeypatch.setattr(torch, "get_num_threads", doctor._cores)
    monkeypatch.setattr(doctor, "_has_bfloat16", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "_why_no_gpu", lambda: "")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def rows() -> dict[str, dict[str, str]]:
    return {row["item"]: row for row in answer("doctor")}


def test_a_machine_without_faults() -> None:
    found = rows()
    assert (found["senet"]["value"], found["torch"]["value"]) == (
        senet.__version__,
        torch.__version__.partition("+")[0],
    )
    assert found["fused SE on cpu"] == {"topic": "speed", "item": "fused SE on cpu", "value": "inductor", "advice": ""}
    assert not [row for row in found.values() if row["advice"]]
    assert {"caffe", "demo", "deploy", "report", "study", "train"} <= set(found)
    assert not {"all", "dev", "networks"} & set(found)
    lines = invoke("doctor").stdout.splitlines()
    assert lines[0].split() == ["topic", "item", "found"]
    assert lines[-1] == "Nothing here makes senet slow."


def without_compiler(device: torch.device) -> bool:
    warnings.warn("PyTorch cannot compile for cpu here", stacklevel=1)
    return False


FAULTS: dict[str, tuple[Any, str, Any, str, str]] = {
    "threads": (torch, "get_num_threads", lambda: 0, "CPU", "PyTorch uses 0 of"),
    "load": (os, "getloadavg", lambda: (1000.0, 1.0, 1.0), "load", "other processes use the"),
    "compiler": (backends, "_compiles", without_compiler, "fused SE on cpu", "PyTorch cannot compile for cpu here"),
    "off": (backends, "_state", {"choice": "off"}, "fused SE on cpu", "SENET_FUSED turns fused passes off: unset it"),
    "bfloat16": (doctor, "_has_bfloat16", lambda: False, "bfloat16 on the CPU", "in software"),
    "memory": (
        shutil, "disk_usage", lambda path: types.SimpleNamespace(total=2**26), "/dev/shm", "docker run --shm-size"
    ),
    "vectors": (torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT", "vectors", "this CPU lacks AVX2"),
    "extra": (extras, "_is_installed", lambda package: package != "openvino", "deploy", "pip install"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_slow(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, value, item, advice = FAULTS[case]
    monkeypatch.setattr(owner, name, value)
    found = rows()
    assert advice in found.pop(item)["advice"]
    assert not [row for row in found.values() if row["advice"]]
    backends._selected.clear()
    assert advice in invoke("doctor").stdout.partition(f"{item}: ")[2]


def test_threads_are_limited_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(doctor, "_cores", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert rows()["CPU"]["advice"] == "PyTorch uses 1 of 64 cores, because of OMP_NUM_THREADS=1"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (None, "is built without CUDA: install PyTorch for CUDA"),
        ("13.0", "for CUDA 13.0 cannot use: update the driver"),
    ],
)
def test_a_gpu_that_is_not_used(build: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", build)
    assert (
        doctor._why_no_gpu()
        == f"this machine has an NVIDIA GPU{', and this PyTorch' if build is None else ' that PyTorch'} {message}"
    )


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = types.SimpleNamespace(name="Tesla T4", total_memory=16 * 2**30, major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: facts)

    def fused_by(device: str) -> str:
        if device != "cpu":
            announce("batch norm with SE does not take Triton's kernels on cuda:0: too old", slower=True)
            announce("compiling batch norm with SE for cuda: the first step takes some seconds longer")
        return "inductor"

    monkeypatch.setattr(backends, "fused_by", fused_by)
    found = rows()
    assert found["cuda:0"]["value"] == "Tesla T4, 16 GiB, compute capability 7.5"
    assert "CUDA" not in found
    assert found["fused SE on cuda:0"]["advice"].endswith("on cuda:0: too old")
