import copy
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import senet
from senet import SEBatchNorm, SqueezeExcitation
from senet.nn.fused import backends, dispatch, fused_by, inductor, reference, set_fused
from tests.helpers import assert_close
from tests.nn.fused.pass_arguments import PASSES, arguments_of


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_ways_agree(by: str, name: str, dtype: torch.dtype, layout: torch.memory_format) -> None:
    arguments = arguments_of(PASSES[name], (3, 6, 5, 4), dtype, layout)
    with torch.no_grad():
        expected = getattr(reference, name.split(maxsplit=1)[0])(*arguments)
        # The first call of a shape looks at the arguments, the second does not.
        run = getattr(backends.backend_for(torch.device("cpu")).passes, name.split(maxsplit=1)[0])
        for found in [run(*arguments) for _ in range(2)]:
            pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected)), strict=True)
            for one, other in pairs:
                assert_close(one, other, {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 2e-2))


def test_many_sizes_compile_once(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and images of twenty sizes; Dynamo gives up in silence after eight otherwise."""
    set_fused("inductor")
    monkeypatch.setattr(inductor, "_compiled", {})
    monkeypatch.setattr(inductor, "_direct", {})
    module = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=1):
        for size in range(2, 22):
            y = torch.randn(2 + size % 7, 4, size, 2 + (size * 5) % 11, requires_grad=True)
            module(y).sum().backward()
    assert len(inductor._compiled) == 4
    assert len(inductor._direct) == 80


def test_under_modes_that_look_at_operations(by: str) -> None:
    """Counters of operations, and tensors without data, get formulas of PyTorch's operations."""
    module = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
    y = torch.randn(2, 4, 5, 5)
    expected = copy.deepcopy(module)(y)
    with FlopCounterMode(display=False) as counter:
        assert_close(copy.deepcopy(module)(y), expected, 1e-5)
    assert counter.get_total_flops() == 2 * 2 * (4 * 2 + 2 * 4)
    with FakeTensorMode():
        fake = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
        output = fake(torch.randn(2, 4, 5, 5))
        output.sum().backward()
        assert output.shape == y.shape
        assert isinstance(fake.weight.grad, FakeTensor)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("way", ["fx", "export"])
def test_traced_in_training(by: str, way: str) -> None:
    torch.manual_seed(0)
    model = senet.create_model("se_resnet20", num_classes=3).double().train()
    other = copy.deepcopy(model)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    traced = torch.fx.symbolic_trace(model) if way == "fx" else torch.export.export(model, (x,)).module()
    outputs = [traced(x), other(x)]
    for output in outputs:
        output.square().sum().backward()
    assert_close(outputs[0], outputs[1], 1e-11)
    for (name, one), two in zip(traced.named_parameters(), other.parameters(), strict=True):
        assert one.grad is not None, name
        assert_close(one.grad, two.grad, 1e-9)
    for name, one in traced.named_buffers():
        assert_close(one, dict(other.named_buffers())[name])


def test_what_ran(by: str) -> None:
    assert fused_by("cpu") == by
    before = len(inductor._compiled)
    with torch.no_grad():
        dispatch.stats(torch.randn(3, 7, 2 + before % 3, 9, 1, 1), torch.zeros(7))
    assert (len(inductor._compiled) > before) == (by == "inductor")


def test_without_a_compiler(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise RuntimeError("no g++ here")

    monkeypatch.setattr(inductor, "stats", fails)
    monkeypatch.setattr(backends, "_selected", {})
    set_fused(True)
    monkeypatch.setattr(backends, "SMALLEST", 1)
    with pytest.warns(UserWarning, match=r"cannot compile for cpu here .* a C\+\+ compiler such as g\+\+ is needed"):
        assert fused_by("cpu") == "aten"
    assert fused_by("cpu") == "aten"  # and does not try, or warn, again
    module = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
    module(torch.randn(2, 4, 3, 3, requires_grad=True)).sum().backward()


# Fresh senet for each value in one process that has imported PyTorch, which takes most of a start's time.
READ_CHOICES = """
import os, sys, torch

for value in sys.argv[1:]:
    if not (child := os.fork()):
        os.environ["SENET_FUSED"] = value
        try:
            from senet.nn.fused import fused_by
            print(value, fused_by("cpu"), flush=True)
        except ValueError as error:
            print(value, error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def choices() -> dict[str, str]:
    """What the passes run by, or an error, for each value of SENET_FUSED."""
    values = ["0", "off", "aten", "False", "inductor", "induktor"]
    done = subprocess.run(
        [sys.executable, "-c", READ_CHOICES, *values], capture_output=True, text=True, check=True, timeout=300
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("value", "expected"), [("0", "off"), ("off", "off"), ("aten", "aten"), ("False", "off"), ("inductor", "inductor")]
)
def test_environment_variable(choices: dict[str, str], value: str, expected: str) -> None:
    assert choices[value] == expected


def test_a_fresh_process_compiles_once() -> None:
    """The choice was read from the environment inside the traced forward, and then changed what Dynamo guards."""
    program = """
import torch, senet
from torch._dynamo.testing import CompileCounter

model = senet.SEBatchNorm(4, se=senet.SqueezeExcitation(4, 2))
counter = CompileCounter()
compiled = torch.compile(model, backend=counter)
for training in (True, False):
    model.train(training)
    for _ in range(3):
        compiled(torch.ones(2, 4, 3, 3)).sum().backward()
    print(counter.frame_count)
"""
    environment = {key: value for key, value in os.environ.items() if key != "SENET_FUSED"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["1", "2"]


def test_environment_variable_that_is_unknown(choices: dict[str, str]) -> None:
    assert "unknown SENET_FUSED 'induktor'; did you mean 'inductor'" in choices["induktor"]


def test_small_maps_are_not_worth_it(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With "auto" alone: neither compiled nor called."""
    set_fused("auto")
    monkeypatch.setattr(backends, "SMALLEST", 100)
    monkeypatch.setitem(backends._selected, ("auto", torch.device("cpu")), "aten")
    module = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
    for size, name in ((24, "Mul"), (25, "_Scale")):
        assert name in type(module(torch.randn(1, 4, 1, size)).grad_fn).__name__
    set_fused("aten")
    assert "_Scale" in type(module(torch.randn(1, 4, 1, 24)).grad_fn).__name__


def test_unknown_choice(restored: None) -> None:
    with pytest.raises(ValueError, match="unknown way to fuse 'induktor'; did you mean 'inductor'"):
        set_fused("induktor")
    set_fused(False)
    assert not dispatch.enabled()


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
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("squeeze", ["avg", "max"])
def test_compiled_whole(squeeze: str, backend: str) -> None:
    module = SEBatchNorm(6, se=SqueezeExcitation(6, 2, squeeze=squeeze)).double()
    other = copy.deepcopy(module)
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    inputs = [y.clone().requires_grad_() for _ in range(2)]
    outputs = [torch.compile(module, fullgraph=True, backend=backend)(inputs[0]), other(inputs[1])]
    for output in outputs:
        output.square().sum().backward()
    assert_close(outputs[0], outputs[1], 1e-12)
    assert_close(inputs[0].grad, inputs[1].grad, 1e-11)
    assert_close(module.running_var, other.running_var)
    assert module.num_batches_tracked == 1
