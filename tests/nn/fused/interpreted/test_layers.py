"""The whole operation with the layers of another library's SE module, against float64 autograd."""

import pytest
import torch
from torch import nn

from senet.nn.fused import Running, excitation_of_layers, set_fused, train_excitation
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
