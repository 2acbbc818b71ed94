"""Triton's kernels in every option, and whole networks of them."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet.fusion import set_fused
from senet.models import ResNet, ResNetSpec
from tests.fusion.test_every_backend import CASES, count_calls
from tests.fusion.whole_cases import Case, check
from tests.helpers import randomise

pytestmark = pytest.mark.usefixtures("restored")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_triton(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    set_fused("triton")
    calls = count_calls(monkeypatch)
    check(case)
    assert calls["whole"] == 1


def network(start: str) -> nn.Module:
    """A network of two units with SE, as small as it can be."""
    spec = {"channels": (8, 16), "widths": (8, 16), "bottleneck": False, "shortcut": "pad"}
    model = ResNet(ResNetSpec(units=(1, 1), stem="conv3", stem_channels=8, pool="none", **spec), num_classes=5)  # type: ignore[arg-type]
    senet.insert(model, reduction=4, start=start)
    return randomise(model) if start == "paper" else model


def train(model: nn.Module, dtype: torch.dtype, layout: torch.memory_format) -> list[torch.Tensor]:
    """Losses, parameters and statistics of two steps."""
    torch.manual_seed(2)
    images = torch.randn(2, 4, 3, 6, 6, dtype=torch.float64).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step in images:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(step.contiguous(memory_format=layout)), torch.arange(4))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [*losses, *[x.detach() for x in model.state_dict().values()]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_network_trains_as_unfused_in_float64(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("paper").to(memory_format=layout)
    unfused, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    set_fused("off")
    truth, plain = train(exact, torch.float64, layout), train(unfused, torch.float32, layout)
    set_fused("triton")
    calls = count_calls(monkeypatch)
    found = train(model, torch.float32, layout)
    assert calls["whole"] >= 2 * 2
    for one, other, value in zip(found, plain, truth, strict=True):
        size = value.double().norm().clamp(min=1e-6)
        errors = [float((x.double() - value).norm() / size) for x in (one, other)]
        assert errors[0] <= max(3 * errors[1], 1e-5), errors
    model.eval(), exact.eval()
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        assert float((model(x) - exact(x.double())).norm() / exact(x.double()).norm()) < 1e-5


def test_an_identity_start_keeps_the_bits_of_the_plain_network() -> None:
    set_fused("triton")
    model = network("identity").eval()
    plain = senet.remove(copy.deepcopy(model))
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        assert torch.equal(model(x), plain(x))
