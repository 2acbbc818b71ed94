import copy
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

import senet
from senet import SEBatchNorm, SqueezeExcitation
from senet.fusion import formulas, fused_by, passes, set_fused
from tests.helpers import assert_close

MAPS = {
    "statistics": ("y", "p"),
    "apply": ("y", "p", "a", "b"),
    "apply_relu": ("y", "p", "a", "b", "g"),
    "reduce": ("g", "y", "p"),
    "reduce_relu": ("g", "x", "y", "p"),
    "gradient": ("g", "y", "p", "a", "b", "a"),
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ways_agree(by: str, name: str, dtype: torch.dtype) -> None:
    wide = formulas.wide(dtype)
    maps = {key: torch.randn(3, 6, 5, 4).to(dtype) for key in "ygx"}
    beside = {key: torch.randn(1 if key == "p" else 3, 6, dtype=wide) for key in "pab"}
    arguments = [(maps | beside)[key] for key in MAPS[name]]
    with torch.no_grad():
        found, expected = passes.run(name, *arguments), getattr(formulas, name)(*arguments)
    for one, other in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected)), strict=True):
        assert_close(one, other, {torch.float64: 1e-13, torch.float32: 1e-5}.get(dtype, 2e-2))


def test_many_sizes_compile_once(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and images of twenty sizes; Dynamo gives up in silence after eight otherwise."""
    set_fused("inductor")
    compiled = 0

    def counted(name: str, compile_: Any = passes._compile) -> Any:
        nonlocal compiled
        compiled += 1
        return compile_(name)

    monkeypatch.setattr(passes, "_compile", counted)
    monkeypatch.setattr(passes, "_compiled", {})
    module = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=1):
        for size in range(2, 22):
            y = torch.randn(2 + size % 7, 4, size, 2 + (size * 5) % 11, requires_grad=True)
            module(y).sum().backward()
    assert compiled == 4


def test_what_ran(by: str) -> None:
    assert fused_by("cpu") == by
    before = len(passes._compiled)
    with torch.no_grad():
        passes.run("statistics", torch.randn(3, 7, 2 + before % 3, 9, 1, 1), torch.zeros(1, 7))
    assert (len(passes._compiled) > before) == (by == "inductor")


def test_without_a_compiler(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise RuntimeError("no g++ here")

    monkeypatch.setattr(passes, "_inductor", fails)
    monkeypatch.setattr(passes, "_backends", {})
    set_fused(True)
    monkeypatch.setattr(passes, "SMALLEST", 1)
    with pytest.warns(UserWarning, match=r"cannot compile for cpu here .* a C\+\+ compiler such as g\+\+ is needed"):
        assert fused_by("cpu") == "aten"
    assert fused_by("cpu") == "aten"  # and does not try, or warn, again
    module = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
    module(torch.randn(2, 4, 3, 3, requires_grad=True)).sum().backward()


@pytest.mark.parametrize(
    ("value", "expected"), [("0", "off"), ("off", "off"), ("aten", "aten"), ("False", "off"), ("inductor", "inductor")]
)
def test_environment_variable(value: str, expected: str) -> None:
    program = "from senet.fusion import fused_by; print(fused_by('cpu'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SENET_FUSED": value},
    )
    assert done.stdout.strip() == expected


def test_small_maps_are_not_worth_it(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With "auto" alone: neither compiled nor called."""
    set_fused("auto")
    monkeypatch.setattr(passes, "SMALLEST", 100)
    monkeypatch.setattr(passes, "_backends", {"cpu": "aten"})
    module = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
    for size, name in ((24, "Mul"), (25, "_Affine")):
        assert name in type(module(torch.randn(1, 4, 1, size)).grad_fn).__name__
    set_fused("aten")
    assert "_Affine" in type(module(torch.randn(1, 4, 1, 24)).grad_fn).__name__


def test_unknown_choice(restored: None) -> None:
    with pytest.raises(ValueError, match="unknown way to fuse 'induktor'; did you mean 'inductor'"):
        set_fused("induktor")
    set_fused(False)
    assert not passes.enabled()


def test_whole_networks_learn_the_same(by: str) -> None:
    torch.manual_seed(0)
    model = senet.create_model("se_resnet20", num_classes=3).double()
    other = copy.deepcopy(model)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    losses = []
    for how, network in ((by, model), ("off", other)):
        set_fused(how)
        loss = network(x).square().sum()
        loss.backward()
        losses.append(loss)
    assert_close(*losses)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert one.grad is not None, name
        assert_close(one.grad, two.grad, 1e-9)
    for one, two in zip(model.buffers(), other.buffers(), strict=True):
        assert_close(one, two)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("squeeze", ["avg", "max"])
def test_compiled_whole(squeeze: str) -> None:
    module = SEBatchNorm(6, se=SqueezeExcitation(6, 2, squeeze=squeeze)).double()
    other = copy.deepcopy(module)
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    inputs = [y.clone().requires_grad_() for _ in range(2)]
    outputs = [torch.compile(module, fullgraph=True)(inputs[0]), other(inputs[1])]
    for output in outputs:
        output.square().sum().backward()
    assert_close(outputs[0], outputs[1], 1e-12)
    assert_close(inputs[0].grad, inputs[1].grad, 1e-11)
    assert_close(module.running_var, other.running_var)
    assert module.num_batches_tracked == 1
