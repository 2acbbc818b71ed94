"""Which backend a device gets, and why not Triton's kernels: GPUs are stand-ins that answer what PyTorch asks them."""

import importlib.util
import types
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from senet.nn.fused import aten, backends, fused_by, fused_choice, inductor, reference, set_fused
from senet.nn.fused.backends import Backend, backend_for, is_worthwhile, worthwhile
from senet.nn.fused.triton import support as triton_support
from senet.utils.notices import listening

TRITON = importlib.util.find_spec("triton") is not None
GPUS = [torch.device("cuda", index) for index in range(3)]


@pytest.fixture
def gpus(restored: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Three GPUs: an A100, a T4 and an H100. Kernels are only said to run; yields lines of notices."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backends, "_selected", {})
    monkeypatch.setattr(torch.version, "hip", None)
    names, capabilities = ("A100", "Tesla T4", "H100"), ((8, 0), (7, 5), (9, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    monkeypatch.setattr(backends, "_compiles", lambda device: True)
    monkeypatch.setattr(triton_support, "_try", lambda device: None)
    monkeypatch.setattr(triton_support, "_version", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: types.SimpleNamespace())
    set_fused("auto")
    lines: list[str] = []
    with listening(lines.append):
        yield lines


def test_each_gpu_has_its_own(gpus: list[str]) -> None:
    assert [fused_by(device) for device in GPUS] == ["triton", "inductor", "triton"]
    assert fused_by("cuda") == "triton"  # the current one
    assert [fused_by(device) for device in GPUS] == ["triton", "inductor", "triton"]
    assert gpus == [
        "batch norm with SE does not take Triton's kernels on cuda:1: Tesla T4 has compute capability 7.5, and they "
        "need 8.0 (Ampere) or newer"
    ]


def test_small_maps_are_worth_it_on_a_gpu_with_kernels(gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [is_worthwhile(1, device) for device in GPUS] == [True, False, True]
    assert [is_worthwhile(backends.SMALLEST, device) for device in GPUS] == [True, True, True]
    assert not worthwhile(torch.ones(1, 2, 3))
    set_fused("off")
    assert not is_worthwhile(backends.SMALLEST, GPUS[0])
    set_fused("inductor")
    assert is_worthwhile(1, GPUS[1])
    assert fused_by(GPUS[0]) == "inductor"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("rocm", "they are for NVIDIA GPUs, and this PyTorch is for ROCm"),
        ("missing", "Triton is not installed, which PyTorch for CUDA requires"),
        ("version", "they are tested with Triton 3.5, 3.6, 3.7, 3.8, not 4.0.1"),
        ("broken", r"Triton does not work here (FileNotFoundError: no C compiler: install gcc)"),
    ],
)
def test_falls_back_with_one_line_that_says_why(
    gpus: list[str], monkeypatch: pytest.MonkeyPatch, cause: str, words: str
) -> None:
    def fails(*args: Any) -> None:
        raise FileNotFoundError("no C compiler: install gcc\nand a second line")

    if cause == "rocm":
        monkeypatch.setattr(torch.version, "hip", "6.4")
    elif cause == "missing":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    elif cause == "version":
        monkeypatch.setattr(triton_support, "_version", lambda: words)
    else:
        monkeypatch.setattr(triton_support, "_try", fails)
    for _ in range(3):
        assert fused_by(GPUS[0]) == "inductor"
    assert gpus == [f"batch norm with SE does not take Triton's kernels on cuda:0: {words}"]
    assert backend_for(GPUS[0]).passes is inductor
    set_fused("triton")
    if cause == "version":  # chosen by name, another version is tried
        assert fused_by(GPUS[0]) == "triton"
        return
    with pytest.warns(UserWarning, match=r"on cuda:0: .*; set_fused\('auto'\) avoids this warning"):
        assert fused_by(GPUS[0]) == "inductor"
    assert fused_by(GPUS[0]) == "inductor"


@pytest.mark.skipif(not TRITON, reason="needs Triton, which PyTorch for CUDA ships")
def test_versions_of_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    for version, known in (("3.5.1", True), ("3.8.0+git1234", True), ("3.4.0", False), ("4.0.1", False)):
        monkeypatch.setattr(triton, "__version__", version)
        reason = triton_support._version()
        assert (reason is None) == known
        assert known or reason == f"they are tested with Triton 3.5, 3.6, 3.7, 3.8, not {version}"


def test_devices_without_kernels_where_triton_is_chosen(gpus: list[str]) -> None:
    """A CPU next to a GPU: as with "auto", with a line that says so, once."""
    set_fused("triton")
    assert fused_by(GPUS[0]) == "triton"
    with pytest.warns(UserWarning, match=r"on cpu: they run on GPUs, and with TRITON_INTERPRET=1 on a CPU, not on cpu"):
        assert not worthwhile(torch.ones(1, 2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fused_by("cpu") == "inductor"
    assert is_worthwhile(1, GPUS[0])


def test_triton_where_nothing_runs_it(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    before = fused_choice()
    with pytest.raises(ValueError, match=r"need an NVIDIA GPU.* use set_fused\('auto'\), or set TRITON_INTERPRET=1"):
        set_fused("triton")
    assert fused_choice() == before


def test_the_interpreter_counts_where_it_is_asked_for(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(backends, "_selected", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: types.SimpleNamespace())
    set_fused("triton")
    assert fused_by("cpu") == "triton"
    assert worthwhile(torch.ones(1, 2, 3))
    set_fused("auto")
    monkeypatch.setattr(backends, "_compiles", lambda device: True)
    assert fused_by("cpu") == "inductor"  # "auto" never interprets on a CPU
    assert "mps" in str(triton_support.unsupported(torch.device("mps")))


def test_maps_of_another_dtype_take_the_formulas(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As maps of float64 do where the kernels of a device compute in float32."""
    from senet.nn.fused import dispatch

    set_fused("aten")
    narrow = Backend("aten", aten, dtypes=frozenset({torch.float32}))
    monkeypatch.setitem(backends._backends, "aten", narrow)
    with torch.no_grad():
        assert dispatch._select((torch.ones(1, 2, 3),)) is aten
        assert dispatch._select((torch.ones(1, 2, 3, dtype=torch.float64),)) is reference
        assert dispatch._select((torch.ones(0, 2, 3),)) is reference


def test_every_backend_has_every_pass() -> None:
    for module in (reference, aten, inductor):
        for name in ("stats", "backward_elemt", "squeeze", "scale", "reduce", "gradient"):
            assert callable(getattr(module, name))
