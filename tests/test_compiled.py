"""SE acts in compiled networks, whichever networks the process compiled before."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet import insert, remove
from senet.models import ResNet, ResNetSpec
from senet.nn.inserted_se import find_inserted_se
from tests.helpers import assert_close, randomise
from tests.slow import fast_if
from tests.training.runs import digits, recipe

pytestmark = pytest.mark.usefixtures("traced")
PLACEMENT = pytest.mark.parametrize("placement", ["pre", "post", "identity"])
X = (4, 3, 16, 16)


def plain() -> nn.Module:
    spec = ResNetSpec(
        units=(1, 1),
        stem="conv3",
        stem_channels=8,
        pool="none",
        channels=(8, 16),
        widths=(8, 16),
        bottleneck=False,
        shortcut="pad",
    )
    return randomise(ResNet(spec, num_classes=5))


def with_se(model: nn.Module, placement: str) -> nn.Module:
    return insert(model, placement, reduction=2, init="paper")


def without_gradient(model: nn.Module, run: Callable[[torch.Tensor], torch.Tensor]) -> list[str]:
    """Tensors of SE that a training step leaves without a gradient."""
    model.zero_grad(set_to_none=True)
    run(torch.randn(X)).square().mean().backward()
    se = [(name, parameter) for name, parameter in model.named_parameters() if ".se." in name]
    assert se
    return [name for name, parameter in se if parameter.grad is None]


@PLACEMENT
def test_after_a_plain_network_was_trained_compiled(placement: str) -> None:
    model = plain()
    torch.compile(model, backend="eager")(torch.randn(X)).sum().backward()
    model = with_se(plain(), placement)
    assert without_gradient(model, torch.compile(model, backend="eager")) == []


@PLACEMENT
@pytest.mark.parametrize("way", ["torch.compile", "compile()"])
@fast_if(lambda way, placement: placement == ("pre" if way == "compile()" else "post"))
def test_inserted_after_compiling(placement: str, way: str) -> None:
    model, x = plain(), torch.randn(X)
    run: Any = model
    if way == "torch.compile":
        run = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
    run(x).sum().backward()
    with torch.no_grad():
        before = run.eval()(x)
        run.train()
    with_se(model, placement)
    assert without_gradient(model, run) == []
    model.eval()
    with torch.no_grad():
        assert_close(run(x), copy.deepcopy(model).forward(x), 1e-5)
        assert not torch.allclose(run(x), before)
        one = find_inserted_se(model)[0]
        remove(model, at=".".join(part for part in (one.name, one.child, "se") if part))
        assert_close(run(x), model.forward(x), 1e-5)
        remove(model)
        assert_close(run(x), model.forward(x), 1e-5)
    assert not any(".se." in name for name in model.state_dict())


@pytest.mark.slow
def test_two_compiled_runs_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    options = ("epochs=1", "warmup=0.5")
    senet.train("resnet20", digits(), recipe(*options, "compile=true"), tmp_path / "plain")
    weights = []
    for compiled in ("true", "false"):
        torch.manual_seed(0)
        se = (*options, f"compile={compiled}", 'network.placement="pre"')
        senet.train("se_resnet20", digits(), recipe(*se), tmp_path / compiled)
        weights.append(senet.load(tmp_path / compiled / "last.safetensors").state_dict())
    for key, weight in weights[1].items():
        if weight.is_floating_point():
            assert_close(weights[0][key], weight, 1e-3)
