"""Training fuses SE that a network has of its own, and leaves the network as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet.fusion import call, is_fused
from senet.training.fusing import fusing
from senet.training.reproducibility import fused_passes
from tests.fusion.networks import MMInvertedResidual, Net
from tests.helpers import noting
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


def test_a_run_of_a_library_s_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It trains, evaluates and saves, and its gates are recorded; with fused passes and without."""
    calls: list[Any] = []
    plain = call.normalize_activate
    monkeypatch.setattr(call, "normalize_activate", noting(calls, lambda *args: args[5], plain))
    runs = []
    for fused in ("auto", "off"):
        recipe = small_recipe(epochs=1, crop_size=32, resize=32, fused=fused, ema=0.5, lr=1e-6)
        data = (small_data(), small_data())
        runs.append(senet.train("timm/mobilenetv3_small_050", data, recipe, tmp_path / fused))
        assert len(calls) == 27  # 9 in each of 3 steps
    assert runs[0].epochs[0].train_loss == pytest.approx(runs[1].epochs[0].train_loss, rel=1e-3)
    model = senet.load(tmp_path / "auto" / "last.safetensors")
    assert len(senet.record_gates(model, [(torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))]).blocks) == 9
