"""The whole operation with the layers of another library's SE module, against float64 autograd."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet.fusion import call
from senet.nn.fused import Running, excitation_of_layers, set_fused, train_excitation
from tests.fusion.networks import seresnet
from tests.fusion.steps import run
from tests.helpers import assert_close


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("with_skip", [False, True])
def test_convolutions(with_skip: bool) -> None:
    set_fused("triton")
    torch.manual_seed(0)
    bn, se = nn.BatchNorm2d(6), nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU(), nn.Conv2d(3, 6, 1), nn.Sigmoid())
    y, skip, g = torch.randn(3, 3, 6, 4, 5)
    parameters = [*bn.parameters(), *se.parameters()]
    found = []
    x = y.clone().requires_grad_()
    running = Running(torch.zeros(6), torch.ones(6), torch.tensor(0), 0.1)
    out = train_excitation(
        x, bn.weight, bn.bias, running, bn.eps, excitation_of_layers(*se), skip if with_skip else None
    )
    assert out is not None
    found.append([out, *torch.autograd.grad(out, [x, *parameters], g), *running[:3]])
    bn.double(), se.double()
    x = y.double().requires_grad_()
    out = bn(x)
    out = out * se(out.mean((2, 3), keepdim=True))
    out = (out + skip).relu() if with_skip else out
    expected = torch.autograd.grad(out, [x, *bn.parameters(), *se.parameters()], g.double())
    found.append([out, *expected, *bn.buffers()])
    for one, other in zip(*found, strict=True):
        assert_close(one.to(other.dtype), other, 1e-5)


@pytest.mark.usefixtures("restored")
@pytest.mark.slow
def test_a_fused_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's SE-ResNet: batch norm, SE, and where they follow the sum and the ReLU, are the whole operation."""
    found: list[bool] = []

    def counted(*arguments: Any) -> Any:
        out = train_excitation(*arguments)
        found.append(out is not None and arguments[6] is not None)
        return out

    monkeypatch.setattr(call, "train_excitation", counted)
    monkeypatch.setattr(call, "normalize", None)  # the general path
    torch.manual_seed(0)
    model = seresnet().train()
    x = torch.randn(2, 3, 32, 32)
    expected = run(copy.deepcopy(model).double(), x.double())
    set_fused("triton")
    senet.fuse(model)
    for one, other in zip(run(model, x), expected, strict=True):
        assert_close(one.double(), other, 1e-4)
    assert found == [True] * 4
