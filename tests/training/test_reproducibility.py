"""What decides how sums are rounded is described as it is, and does not say more has changed than has."""

from typing import Any

import pytest
import torch

from senet.nn.fused import backends
from senet.training.reproducibility import fused_passes, rounding
from tests.training.small import small_network, small_recipe


@pytest.fixture(autouse=True)
def _auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of 8x8 with 8 channels and 4x4 with 16: 512 and 256 elements an image."""
    monkeypatch.setitem(backends._state, "choice", "auto")
    monkeypatch.setitem(backends._selected, ("auto", torch.device("cpu")), "aten")
    monkeypatch.setattr(backends, "SMALLEST", 1500)


@pytest.mark.parametrize(
    ("options", "batch", "processes", "expected"),
    [
        ({}, 2, 1, "off"),
        ({}, 4, 1, "aten, 1 of 2 batch norms"),
        ({}, 8, 1, "aten"),
        ({}, 8, 2, "aten, 1 of 2 batch norms"),
        ({"accumulate": 2}, 8, 1, "aten, 1 of 2 batch norms"),
        ({"accumulate": 2}, 8, 2, "off"),
        ({"compile": True}, 2, 1, "compiled"),
        ({"train_only": "se"}, 8, 1, "off"),
    ],
)
def test_auto_fuses_by_the_size_of_maps(options: dict[str, Any], batch: int, processes: int, expected: str) -> None:
    recipe = small_recipe(**{"batch": 8} | options)
    assert fused_passes(small_network(), recipe, batch, processes) == expected


def test_the_size_of_maps_follows_height_and_width() -> None:
    """16x8 is twice the map of 8x8."""
    recipe = small_recipe(batch=2, crop_size=[16, 8], resize=[16, 8])
    assert fused_passes(small_network(), recipe, 2) == "aten, 1 of 2 batch norms"


@pytest.mark.parametrize("choice", ["aten", "inductor", "off"])
def test_a_choice_holds_for_maps_of_any_size(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    monkeypatch.setitem(backends._state, "choice", choice)
    assert fused_passes(small_network(), small_recipe(), 1) == choice
    assert fused_passes(small_network(se=False), small_recipe(), 1) == "off"


def test_the_network_is_left_as_it_is() -> None:
    """The image that goes through it to see its maps changes no statistics, modes or random numbers."""
    model = small_network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    fused_passes(model, small_recipe(), 4)
    assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(0))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_switches_are_those_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    model, recipe = small_network(), small_recipe()
    usual = rounding(model, recipe, 4)
    assert usual["torch"] == torch.__version__
    assert usual["device"].endswith(torch.backends.cpu.get_cpu_capability())
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert rounding(model, recipe, 4)["device"].endswith(", DEFAULT")
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(not before)
        torch.set_flush_denormal(True)
        torch._C._set_mkldnn_enabled(False)
        now = rounding(model, recipe, 4)
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_flush_denormal(False)
        torch._C._set_mkldnn_enabled(True)
    changed = {key for key in usual if now[key] != usual[key]} - {"device"}
    assert changed == {"deterministic algorithms", "oneDNN", "flushes denormals"}


def test_variables_that_select_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN and MKL do not say which instruction set they were limited to."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    before = rounding(small_network(), small_recipe(), 4)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    after = rounding(small_network(), small_recipe(), 4)
    assert "ONEDNN_MAX_CPU_ISA=SSE41" in after["environment"]
    assert {key for key in after if after[key] != before[key]} == {"environment"}
