"""Where the fused module met what it was not made for; each of these failed, or was wrong, once."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from senet import SEBatchNorm, SqueezeExcitation
from senet.nn.fused import inductor, set_fused
from senet.nn.sum_relu import sum_relu
from tests.helpers import assert_close, randomise


def module(**options: Any) -> SEBatchNorm:
    made = SEBatchNorm(6, se=SqueezeExcitation(6, 2), **options)
    randomise(made)
    return made.double()


def parts(fused: SEBatchNorm) -> nn.Sequential:
    """A batch norm and SE of the same weights, and not the same parameters."""
    other = copy.deepcopy(fused)
    return nn.Sequential(other.to_batch_norm(), other.se)


def maps(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("where", ["middle pixel far off", "middle pixel like none", "heavy tails"])
def test_a_pixel_costs_no_digits(by: str, where: str) -> None:
    """The pivot was one pixel; where that was far from the rest, sums lost their digits."""
    y = torch.randn(1 if where == "heavy tails" else 16, 6, 56, 56, dtype=torch.float64)
    if where == "middle pixel far off":
        y[..., 28, 28] += 1e6
    elif where == "middle pixel like none":
        y += 1e4
        y[..., 28, 28] = 0
    else:
        y = y.exp() ** 2
    fused = module()
    truth = parts(fused)(y)
    fused, single = fused.float(), y.float()
    pytorch = parts(fused)
    errors = [(one(single) - truth).abs().max() / truth.abs().max() for one in (fused, pytorch)]
    assert errors[0] <= 4 * errors[1] + 1e-7


@pytest.mark.usefixtures("traced")  # a gate for all channels is no shape that is checked for
@pytest.mark.parametrize("first", ["ordinary", "strange"])
def test_gradients_without_gaps_and_with(by: str, first: str) -> None:
    """What a call was checked for has strides and shapes of all tensors, not of the map alone."""
    ordinary, strange = module(), module()
    strange.se.gate.register_forward_hook(lambda gate, args, output: output[:, :1])
    strange.se.fc1.register_forward_pre_hook(lambda fc, args: (args[0].sum(1, keepdim=True).expand(-1, 6),))
    order = [ordinary, strange] if first == "ordinary" else [strange, ordinary]
    for fused in order:
        y = maps(3, 6, 5, 4)
        hooked = parts(fused)
        one, other = y.clone().requires_grad_(), y.clone().requires_grad_()
        outputs = fused(one), hooked(other)
        for output in outputs:
            output.square().sum().backward()
        assert_close(*outputs)
        assert_close(one.grad, other.grad, 1e-11)
    weight = maps(6, 2)[:, 0]
    y = maps(3, 6, 5, 4)
    expected = torch.func.functional_call(parts(ordinary), {"0.weight": weight}, (y,))
    assert_close(torch.func.functional_call(ordinary, {"weight": weight}, (y,)), expected)


@pytest.mark.usefixtures("traced")
def test_compiled_in_training_without_gradients(by: str) -> None:
    fused = module()
    y = maps(3, 6, 5, 4)
    expected = parts(fused)(y)
    with torch.no_grad():
        assert_close(torch.compile(fused, fullgraph=True, backend="aot_eager")(y), expected)


@pytest.mark.parametrize("trained", [("weight",), ("bias", "se.fc1.weight"), ("se.fc2.bias",), ("weight", "bias")])
def test_gradients_of_gradients_of_some(by: str, trained: tuple[str, ...]) -> None:
    fused = module()
    for name, parameter in fused.named_parameters():
        parameter.requires_grad_(name in trained)
    other = parts(fused)
    y = maps(3, 6, 5, 4)
    found = []
    for network in (fused, other):
        parameters = [p for p in network.parameters() if p.requires_grad]
        first = torch.autograd.grad(network(y).pow(3).sum(), parameters, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), parameters))
    for one, two in zip(*found, strict=True):
        assert_close(one, two, 1e-9)


@pytest.mark.parametrize("shape", [(0, 6, 5, 4), (3, 6, 0, 4)])
def test_nothing_at_all(by: str, shape: tuple[int, ...]) -> None:
    fused = module()
    y = maps(*shape).requires_grad_()
    fused(y).sum().backward()
    assert y.grad is not None
    assert y.grad.shape == shape


def test_compiler_stance_force_eager(restored: None) -> None:
    set_fused("inductor")
    fused, y = module(eps=0.0123), maps(2, 6, 9, 9)
    with torch.compiler.set_stance("force_eager"):
        assert_close(fused(y), parts(fused)(y))
    assert_close(fused(y), parts(fused)(y))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # PyTorch's own use
def test_batched_gradients_and_forward_mode(by: str) -> None:
    fused = module()
    other = parts(fused)
    y = maps(3, 6, 2, 2).requires_grad_()
    rows = torch.eye(y.numel(), dtype=torch.float64).reshape(-1, *y.shape)
    found = [torch.autograd.grad(one(y), y, rows, is_grads_batched=True)[0] for one in (fused, other)]
    assert_close(found[0], found[1], 1e-11)
    tangent = maps(3, 6, 2, 2)
    ways = []
    for one in (fused, other):
        with forward_ad.dual_level():
            ways.append(forward_ad.unpack_dual(one(forward_ad.make_dual(y.detach(), tangent))).tangent)
    assert_close(ways[0], ways[1], 1e-11)


def test_not_a_number_at_the_relu(by: str) -> None:
    """PyTorch lets the gradient through, where it came from nothing that is 0 or less."""
    fused = module()
    y, skip = maps(2, 6, 3, 3), maps(2, 6, 3, 3)
    skip[0, 0, 0, 0] = float("nan")
    skip.requires_grad_()
    output = sum_relu(fused, y, skip)
    assert output is not None
    output.sum().backward()
    assert skip.grad is not None
    assert skip.grad[0, 0, 0, 0] == 1


@pytest.mark.slow
def test_more_numbers_of_threads_than_dynamo_compiles_for(restored: None) -> None:
    set_fused("inductor")
    before = torch.get_num_threads()
    fused = module()
    try:
        for number in range(1, 11):
            torch.set_num_threads(number)
            y = maps(2, 6, 3, 10 + number)
            assert_close(fused(y), parts(fused)(y))
    finally:
        torch.set_num_threads(before)


def test_eps_of_numpy_and_some_channels_of_a_map(by: str) -> None:
    fused = module(eps=np.float64(1e-3))
    y = maps(3, 12, 5, 4).contiguous(memory_format=torch.channels_last)[:, :6]
    output = fused(y)
    assert_close(output, parts(fused)(y))
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_shapes_that_are_kept_are_bounded(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    set_fused("inductor")
    monkeypatch.setattr(inductor, "_direct", {})
    monkeypatch.setattr(inductor, "_MOST", 5)
    fused = module()
    for size in range(2, 9):
        fused(maps(2, 6, 3, size))
        assert len(inductor._direct) <= 5
