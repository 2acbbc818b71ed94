"""Triton's kernels in every option, and whole networks of them."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import senet
from senet.models import ResNet, ResNetSpec
from senet.nn.fused import set_fused
from senet.nn.sum_relu import sum_relu
from tests.helpers import randomise
from tests.nn.fused.test_every_backend import CASES, count_calls
from tests.nn.fused.whole_cases import Case, check
from tests.slow import fast_if

pytestmark = pytest.mark.usefixtures("restored")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_triton(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    set_fused("triton")
    calls = count_calls(monkeypatch)
    check(case)
    assert calls["whole"] == 1


def network(init: str) -> nn.Module:
    """A network of two units with SE, as small as it can be."""
    spec = {"channels": (8, 16), "widths": (8, 16), "bottleneck": False, "shortcut": "pad"}
    model = ResNet(ResNetSpec(units=(1, 1), stem="conv3", stem_channels=8, pool="none", **spec), num_classes=5)  # type: ignore[arg-type]
    senet.insert(model, reduction=4, init=init)
    return randomise(model) if init == "paper" else model


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
@fast_if(lambda layout: layout == torch.channels_last)
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


def norm(channels: int = 20, **options: Any) -> senet.SEBatchNorm:
    return randomise(senet.SEBatchNorm(channels, se=senet.SqueezeExcitation(channels, 4, **options)))  # type: ignore[return-value]


@pytest.mark.parametrize("variant", ["maximum", "activation", "hook", "wide", "partly frozen"])
def test_the_general_path(variant: str) -> None:
    """Triton's passes around the modules of the block. Frozen parameters are for the whole operation."""
    options: dict[str, Any] = {"maximum": {"squeeze": "max"}, "activation": {"activation": "mish"}}.get(variant, {})
    fused = norm(**options, **({"hidden_channels": 300} if variant == "wide" else {}))
    if variant == "hook":
        fused.se.fc1.register_forward_hook(lambda *_: None)
    if variant == "partly frozen":
        fused.se.fc1.requires_grad_(False)
        fused.bias.requires_grad_(False)
    exact = copy.deepcopy(fused).double()
    y, skip, g = torch.randn(3, 3, 20, 4, 5)
    results = []
    for module, how in ((fused, "triton"), (exact, "off")):
        set_fused(how)
        dtype = module.running_var.dtype
        inputs = [x.to(dtype, copy=True).requires_grad_() for x in (y, skip)]
        out = sum_relu(module, *inputs) if how == "triton" else (module(inputs[0]) + inputs[1]).relu()
        assert out is not None
        applied = type(out.grad_fn).__name__
        assert how == "off" or applied == ("_WholeBackward" if variant == "partly frozen" else "_ScaleBackward")
        out.backward(g.to(dtype))
        results.append([out.detach(), *[x.grad for x in (*inputs, *module.parameters())], module.running_var])
    for one, other in zip(*results, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert float((one.double() - other).norm() / other.norm()) < 2e-5


@pytest.mark.parametrize("training", [True, False])
def test_a_skip_of_another_layout(training: bool) -> None:
    fused, y, skip = norm(8).train(training), torch.randn(2, 8, 3, 5), torch.randn(2, 8, 3, 5)
    exact = copy.deepcopy(fused).double()
    set_fused("triton")
    with torch.set_grad_enabled(training):
        out = sum_relu(fused, y.to(memory_format=torch.channels_last), skip)
    set_fused("off")
    assert out is not None
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert float((out - (exact(y.double()) + skip).relu()).detach().abs().max()) < 1e-4


def test_gradients_of_gradients_and_checkpointing() -> None:
    set_fused("triton")
    fused, y, skip = norm(8), torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3)
    again, exact = copy.deepcopy(fused), copy.deepcopy(fused).double()
    parameters = list(fused.parameters())
    out = sum_relu(fused, y, skip)
    assert out is not None
    first = torch.autograd.grad((out + 1).pow(3).sum(), parameters, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), parameters)
    set_fused("off")
    truth = (exact(y.double()) + skip.double()).relu()
    exact_first = torch.autograd.grad((truth + 1).pow(3).sum(), list(exact.parameters()), create_graph=True)
    exact_second = torch.autograd.grad(sum(x.square().sum() for x in exact_first), list(exact.parameters()))
    for one, other in zip((*first, *second), (*exact_first, *exact_second), strict=True):
        assert float((one.detach().double() - other.detach()).norm() / other.detach().norm()) < 1e-4
    set_fused("triton")
    again.momentum = 0.0
    copied = copy.deepcopy(again)
    x = [y.clone().requires_grad_() for _ in range(2)]
    again(x[0]).square().sum().backward()
    checkpoint(copied, x[1], use_reentrant=False).square().sum().backward()
    assert torch.equal(x[0].grad, x[1].grad)  # type: ignore[arg-type]
