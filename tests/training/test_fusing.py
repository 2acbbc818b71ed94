"""Training fuses SE that a network has of its own, and leaves the network as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet.fusion import fused_call, is_fused
from senet.training.fusing import fusing
from senet.training.reproducibility import fused_passes
from tests.fusion.networks import MMInvertedResidual, Net
from tests.helpers import assert_close, noting
from tests.training.small import SIZE, small_data, small_recipe


def own_se() -> nn.Module:
    model = Net(MMInvertedResidual(8, nn.SiLU()), MMInvertedResidual(8, nn.ReLU()))
    model.eval()(torch.zeros(1, 3, SIZE, SIZE))
    return model


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, True), ({"fused": "off"}, False), ({"compile": True}, False), ({"train_only": "se"}, False)],
)
def test_within_a_run(options: dict[str, Any], expected: bool) -> None:
    model, recipe = own_se(), small_recipe(**options)
    with fusing(model, recipe):
        assert is_fused(model) == expected
        assert fused_passes(model, recipe, 4) == ("aten" if expected else "off")
    assert not is_fused(model)
    assert not hasattr(model, "fuse_report")


def test_a_fused_network_stays_fused() -> None:
    model = senet.fuse(own_se())
    with fusing(model, small_recipe()):
        assert is_fused(model)
    assert is_fused(model)


@pytest.mark.parametrize("size", [32])
def test_a_run_of_a_library_s_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """It trains, evaluates and saves, and its gates are recorded; with fused passes and without."""
    calls: list[Any] = []
    plain = fused_call.normalize_activate
    monkeypatch.setattr(fused_call, "normalize_activate", noting(calls, lambda *args: args[5], plain))
    found = []
    for fused in ("auto", "off"):
        recipe = small_recipe(epochs=1, crop_size=size, resize=size, fused=fused, ema=0.5, lr=0.01)
        senet.train("timm/mobilenetv3_small_050", (small_data(), small_data()), recipe, tmp_path / fused)
        assert len(calls) == 27  # 9 in each of 3 steps
        found.append(senet.load(tmp_path / fused / "last.safetensors"))
    for one, two in zip(found[0].state_dict().values(), found[1].state_dict().values(), strict=True):
        assert_close(one, two, 1e-3)
    loader = [torch.rand(4, 3, size, size)]
    assert len(senet.record_gates(found[0], loader).blocks) == 9
