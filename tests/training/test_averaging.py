"""The moving average of weights: timm's on the host, and the same on the device."""

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from senet.training.averaging import WeightAverage
from tests.helpers import assert_close


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double()


def change(model: nn.Module, number: int) -> None:
    random = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(torch.randn(value.shape, generator=random).mul(9).to(value.dtype))


@pytest.mark.parametrize("on_device", [False, True])
def test_averages_are_timms(on_device: bool) -> None:
    model = network()
    average = WeightAverage(model, 0.9, on_device=on_device)
    expected = ModelEmaV3(model, decay=0.9, use_warmup=True)
    for step in range(1, 100):
        change(model, step)
        average.prepare(step)
        average.update()
        expected.update(model, step=step)
    assert expected.get_decay(99) == 0.9
    for ours, theirs in zip(average.tensors, expected.module.state_dict().values(), strict=True):
        assert_close(ours, theirs, 1e-13 if on_device else 0.0)
    assert not average.module.training


def test_updates_on_the_device_read_the_part_from_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    average = WeightAverage(model, 0.9, on_device=True)
    average.prepare(1)
    monkeypatch.delattr(ModelEmaV3, "get_decay")
    change(model, 1)
    average.update()
    for ours, theirs in zip(average.tensors, model.state_dict().values(), strict=True):
        assert_close(ours, theirs, 1e-13)
