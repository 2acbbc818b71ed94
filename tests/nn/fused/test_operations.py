"""The fused module against batch norm and SE, one after the other, by PyTorch's own autograd in float64."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from senet import SEBatchNorm, SqueezeExcitation
from senet.nn.batch_norm import BATCH_NORMS
from senet.nn.block import ACTIVATIONS, GATES
from senet.nn.fused import aten, dispatch, reference, set_fused
from senet.nn.sum_relu import sum_relu
from tests.helpers import assert_close, randomise
from tests.slow import fast_if


def pair(dim: int = 2, channels: int = 6, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """An SEBatchNorm, and a batch norm and SE, of the same weights and statistics."""
    of_bn = {key: options.pop(key) for key in ("eps", "momentum", "affine", "track_running_stats") if key in options}
    bn = randomise(BATCH_NORMS[dim](channels, **of_bn)).to(dtype)
    if bn.weight is not None:
        with torch.no_grad():
            bn.weight[0] *= -1  # an extreme of the other side
    se = randomise(SqueezeExcitation(channels, 2, **options)).to(dtype)
    return copy.deepcopy(SEBatchNorm.from_batch_norm(bn, se)), nn.Sequential(bn, se)


def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the passes that are run."""
    names: list[str] = []

    def counted(name: str, run: Any) -> Any:
        def call(*arguments: Any) -> Any:
            names.append(name)
            return run(*arguments)

        return call

    for name in ("stats", "squeeze", "scale", "reduce", "gradient", "backward_elemt"):
        monkeypatch.setattr(dispatch, name, counted(name, getattr(dispatch, name)))
    return names


def assert_same_learning(ours: SEBatchNorm, theirs: nn.Sequential, y: Tensor, relative: float = 1e-12) -> None:
    """Outputs, statistics, and every gradient, or that there is none."""
    inputs = [y.detach().clone(memory_format=torch.preserve_format).requires_grad_(y.requires_grad) for _ in range(2)]
    outputs = [module(x) for module, x in zip((ours, theirs), inputs, strict=True)]
    assert_close(outputs[0], outputs[1], relative)
    factor = torch.randn_like(outputs[1])
    for output in outputs:
        if output.requires_grad:
            (output * factor).sum().backward()
    found = [inputs[0].grad, *[p.grad for p in ours.parameters()]]
    expected = [inputs[1].grad, *[p.grad for p in theirs.parameters()]]
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if other is not None and float(other.abs().max()) < 1e-11:
            assert float(one.abs().max()) < 1e-10  # such as those of a squeeze that is always 0: nothing but rounding
        elif one is not None:
            assert_close(one, other, relative)
    for key, value in theirs[0].state_dict().items():
        assert_close(ours.state_dict()[key], value, relative)


OPTIONS = {
    "gate": st.sampled_from(sorted(GATES)),
    "activation": st.sampled_from(sorted(ACTIVATIONS)),
    "squeeze": st.sampled_from(["avg", "max"]),
    "bias": st.booleans(),
    "gain": st.sampled_from([1.0, 2.0]),
    "eps": st.sampled_from([1e-5, 1e-2]),
    "momentum": st.sampled_from([0.1, None]),
    "affine": st.booleans(),
}


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 4),
    space=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    options=st.fixed_dictionaries(OPTIONS),
    frozen=st.sets(st.integers(0, 6)),
    layout=st.sampled_from(["contiguous", "channels last", "gaps"]),
)
def test_is_batch_norm_then_se(
    restored: None, n: int, space: list[int], options: dict[str, Any], frozen: set[int], layout: str
) -> None:
    set_fused("aten")
    # The squeeze of one sample is then 0, but for rounding, and what a ReLU makes of that is chance.
    assume(n > 1 or options["affine"] or options["squeeze"] == "max")
    ours, theirs = pair(len(space), **options)
    for module in (ours, theirs):
        for number, parameter in enumerate(module.parameters()):
            parameter.requires_grad_(number not in frozen)
    y = laid_out(torch.randn(n, 6, *space, dtype=torch.float64) + 1, layout).requires_grad_(6 not in frozen)
    if n * y[0, 0].numel() == 1:
        for module in (ours, theirs):
            with pytest.raises(ValueError, match=r"[Ee]xpected more than 1 value per channel when training"):
                module(y)
        return
    # Of two values a normalized channel is 1 and -1, whatever they are: gradients are differences of equals.
    assert_same_learning(ours, theirs, y, 1e-12 if n * y[0, 0].numel() > 2 else 1e-6)


def laid_out(y: Tensor, layout: str) -> Tensor:
    if layout == "gaps":
        return torch.stack([y, y], -1)[..., 0]
    if layout == "channels last" and y.ndim > 3:
        return y.contiguous(memory_format=torch.channels_last if y.ndim == 4 else torch.channels_last_3d)
    return y


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "gaps"])
@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 6, 4, 5), (2, 6, 3, 2, 4), (1, 6, 4, 5), (4, 6, 1, 1)], ids=str)
@pytest.mark.parametrize("squeeze", ["avg", "max"])
def test_by_either_way(by: str, shape: tuple[int, ...], layout: str, squeeze: str, monkeypatch: Any) -> None:
    names = count(monkeypatch)
    ours, theirs = pair(len(shape) - 2, squeeze=squeeze)
    assert_same_learning(ours, theirs, laid_out(torch.randn(shape, dtype=torch.float64), layout).requires_grad_())
    assert names == ["squeeze", "scale", "reduce", "gradient"]


@pytest.mark.parametrize("ties", [False, True])
def test_maximum_of_equals_and_of_a_weight_of_zero(by: str, ties: bool) -> None:
    ours, theirs = pair(squeeze="max")
    for bn in (ours, theirs[0]):
        with torch.no_grad():
            bn.weight[1] = 0
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    assert_same_learning(ours, theirs, (y.round() if ties else y).requires_grad_(), 1e-11)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_a_large_mean_costs_no_digits(by: str, layout: str) -> None:
    """In float32, with mean 1e4 and spread 1: no further from float64's truth than PyTorch's own."""
    torch.manual_seed(1)
    y = laid_out(torch.randn(8, 6, 16, 16, dtype=torch.float64) + 1e4, layout).float()
    exact, _ = pair()
    ours, theirs = copy.deepcopy(exact).float(), nn.Sequential(exact.to_batch_norm(), copy.deepcopy(exact.se))
    theirs = copy.deepcopy(theirs).float()
    g = torch.randn(8, 6, 16, 16)
    results = []
    for module in (exact, ours, theirs):
        x = y.to(next(module.parameters()).dtype).detach().requires_grad_()
        output = module(x)
        output.backward(g.to(output.dtype))
        bn = module if isinstance(module, SEBatchNorm) else module[0]
        results.append([output.detach(), x.grad, bn.weight.grad, bn.running_var, bn.running_mean])
    for truth, mine, pytorchs in zip(*results, strict=True):
        errors = [float((found.double() - truth).abs().max() / truth.abs().max()) for found in (mine, pytorchs)]
        assert errors[0] <= max(2 * errors[1], 1e-6), errors


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_statistics_of_a_large_mean(layout: str) -> None:
    y = laid_out(torch.randn(2, 6, 24, 24) + 1e4, layout)
    p = reference.pivot(y)
    for found, truth in zip(aten.stats(y, p), reference.stats(y.double(), p.double()), strict=True):
        assert float((found - truth).abs().max()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("whole", [False, True], ids=["autocast", "half"])
def test_low_precision(by: str, dtype: torch.dtype, whole: bool) -> None:
    """Maps in half precision; other tensors in float32, under autocast or with weights of half precision."""
    exact, _ = pair(channels=16)
    ours, theirs = copy.deepcopy(exact), nn.Sequential(exact.to_batch_norm(), copy.deepcopy(exact.se))
    ours, theirs = (copy.deepcopy(module).to(dtype if whole else torch.float32) for module in (ours, theirs))
    y = torch.randn(4, 16, 8, 8).to(dtype)
    results = []
    for module in (exact, ours, theirs):
        x = y.double() if module is exact else y.clone()
        x.requires_grad_()
        with torch.autocast("cpu", dtype, enabled=module is not exact and not whole):
            output = module(x)
        assert output.dtype == x.dtype
        output.square().sum().backward()
        results.append([output.detach(), x.grad])
    for truth, mine, pytorchs in zip(*results, strict=True):
        errors = [float((found.double() - truth).abs().max() / truth.abs().max()) for found in (mine, pytorchs)]
        assert errors[0] <= max(1.5 * errors[1], 2 * torch.finfo(dtype).eps), errors


@fast_if(lambda by: by != "inductor")
def test_grad_scaler(by: str) -> None:
    ours, _ = pair(dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    before = [parameter.clone() for parameter in ours.parameters()]
    with torch.autocast("cpu", torch.float16):
        loss = ours(torch.randn(4, 6, 5, 5).half()).float().square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert all(parameter.isfinite().all() for parameter in ours.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, ours.parameters(), strict=True))


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(by: str, reentrant: bool) -> None:
    plain, _ = pair()
    again = copy.deepcopy(plain)
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    inputs = [y.clone().requires_grad_() for _ in range(2)]
    outputs = [plain(inputs[0]), checkpoint(again, inputs[1], use_reentrant=reentrant)]
    for output in outputs:
        output.square().sum().backward()
    assert_close(*outputs)
    assert_close(inputs[0].grad, inputs[1].grad)
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        assert_close(one.grad, other.grad)


def test_backward_twice_and_accumulated(by: str) -> None:
    ours, theirs = pair()
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    gradients = []
    for module in (ours, theirs):
        x = y.clone().requires_grad_()
        loss = module(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        module(2 * x).sum().backward()
        gradients.append([x.grad, *[parameter.grad for parameter in module.parameters()]])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("squeeze", ["avg", "max"])
@pytest.mark.parametrize("with_skip", [False, True])
def test_gradients_of_gradients(by: str, squeeze: str, with_skip: bool) -> None:
    ours, theirs = pair(squeeze=squeeze, channels=2)
    y = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    skip = torch.randn_like(y).requires_grad_()

    def second(function: Any, module: nn.Module) -> list[Tensor]:
        inputs = [y, skip, *module.parameters()]
        first = torch.autograd.grad(function(y, skip).pow(3).sum(), inputs, create_graph=True, allow_unused=True)
        total = sum((g.pow(2).sum() for g in first if g is not None), torch.zeros((), dtype=torch.float64))
        return [g for g in torch.autograd.grad(total, inputs, allow_unused=True) if g is not None]

    if with_skip:
        pairs = second(lambda y, s: sum_relu(ours, y, s), ours), second(lambda y, s: (theirs(y) + s).relu(), theirs)
    else:
        pairs = second(lambda y, s: ours(y), ours), second(lambda y, s: theirs(y), theirs)
    for one, other in zip(*pairs, strict=True):
        assert_close(one, other, 1e-10)


def test_functional_transforms_see_the_parts(by: str, monkeypatch: Any) -> None:
    """Without running statistics: PyTorch's transforms let no batch norm change any."""
    names = count(monkeypatch)
    ours, theirs = pair(track_running_stats=False)
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    found = [torch.func.grad(lambda x, m=module: m(x).square().sum())(y) for module in (ours, theirs)]
    assert_close(*found)
    assert not names


def test_without_gradients_statistics_are_taken_all_the_same(by: str) -> None:
    ours, theirs = pair()
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        assert_close(ours(y), theirs(y))
    assert_close(ours.running_var, theirs[0].running_var)


def test_hooks_of_the_excitation_fire(by: str) -> None:
    ours, theirs = pair()
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    gates: list[Tensor] = []
    for gate in (ours.se.gate, theirs[1].gate):
        gate.register_forward_hook(lambda module, args, output: gates.append(output))
    ours(y), theirs(y)
    assert_close(*gates)


@pytest.mark.parametrize(
    "hook",
    [
        lambda se: se.register_forward_hook(lambda module, args, output: 2 * output),
        lambda se: se.register_forward_pre_hook(lambda module, args: (2 * args[0],)),
        lambda se: se.register_full_backward_hook(lambda module, grad_in, grad_out: (2 * grad_in[0],)),
    ],
)
def test_hooks_of_the_block_are_obeyed(by: str, hook: Any, monkeypatch: Any) -> None:
    names = count(monkeypatch)
    ours, theirs = pair()
    hook(ours.se)
    hook(theirs[1])
    assert_same_learning(ours, theirs, torch.randn(3, 6, 4, 4, dtype=torch.float64, requires_grad=True))
    assert not names


def test_a_block_that_computes_something_else(by: str) -> None:
    class Other(SqueezeExcitation):
        def forward(self, u: Tensor) -> Tensor:
            return 3 * u

    ours = SEBatchNorm(6, se=Other(6, 2))
    bn = copy.deepcopy(ours.to_batch_norm())
    y = torch.randn(3, 6, 4, 4)
    assert_close(ours(y), 3 * bn(y), 1e-6)


@pytest.mark.parametrize("squeeze", ["avg", "none"])
def test_what_is_not_fused(by: str, squeeze: str, monkeypatch: Any) -> None:
    """NoSqueeze, and everything when it is switched off."""
    names = count(monkeypatch)
    if squeeze == "avg":
        set_fused(False)
    ours, theirs = pair(squeeze=squeeze)
    assert_same_learning(ours, theirs, torch.randn(3, 6, 4, 4, dtype=torch.float64, requires_grad=True))
    assert not names


def test_copies_and_pickles(by: str) -> None:
    ours, _ = pair()
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    copies = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]
    expected = ours(y)
    for module in copies:
        assert torch.equal(module(y), expected)


@pytest.mark.parametrize("se", [True, False])
def test_keeps_no_more_than_batch_norm(by: str, se: bool) -> None:
    """Maps that are saved for backward: y; with a sum and ReLU, y and the output."""
    ours, _ = pair(dtype=torch.float32)
    bn: Any = ours if se else ours.to_batch_norm()
    y = torch.randn(4, 6, 8, 8, requires_grad=True)
    skip = torch.randn(4, 6, 8, 8, requires_grad=True)
    for function, maps in ((lambda: bn(1 * y), 1), (lambda: sum_relu(bn, 1 * y, 1 * skip), 2)):
        saved: dict[int, int] = {}

        def keep(x: Tensor, saved: dict[int, int] = saved) -> Tensor:
            saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            function()
        assert sum(size == y.numel() * 4 for size in saved.values()) == maps


@pytest.mark.parametrize("se", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_sum_and_relu_in_evaluation(by: str, se: bool, gradients: bool) -> None:
    ours, theirs = pair()
    bn: Any = (ours if se else copy.deepcopy(ours.to_batch_norm())).eval()
    parts = (theirs if se else theirs[:1]).eval()
    y, skip = torch.randn(2, 3, 6, 4, 4, dtype=torch.float64)
    kept = y.clone(), skip.clone()
    with torch.set_grad_enabled(gradients):
        found = sum_relu(bn, y.requires_grad_(gradients), skip)
        expected = (parts(y) + skip).relu()
    assert_close(found, expected, 1e-14)
    assert torch.equal(y, kept[0])
    assert torch.equal(skip, kept[1])
    if gradients:
        (one,), (other,) = (torch.autograd.grad(x.square().sum(), y) for x in (found, expected))
        assert_close(one, other)


@pytest.mark.parametrize("se", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_sum_and_relu(by: str, se: bool, layout: str, monkeypatch: Any) -> None:
    names = count(monkeypatch)
    ours, theirs = pair()
    bn: Any = ours if se else copy.deepcopy(ours.to_batch_norm())
    parts = theirs if se else theirs[:1]
    y, skip = (laid_out(torch.randn(3, 6, 4, 4, dtype=torch.float64), layout) for _ in range(2))
    inputs = [[x.clone().requires_grad_() for x in (y, skip)] for _ in range(2)]
    outputs = [sum_relu(bn, *inputs[0]), (parts(inputs[1][0]) + inputs[1][1]).relu()]
    g = torch.randn_like(y)
    for output in outputs:
        output.backward(g)
    assert_close(*outputs)
    for one, other in zip(*inputs, strict=True):
        assert_close(one.grad, other.grad)
    for one, other in zip(bn.parameters(), parts.parameters(), strict=True):
        assert_close(one.grad, other.grad)
    assert_close(bn.running_var, theirs[0].running_var)
    # Batch norm alone is PyTorch's own, with the sum and the ReLU where its output is.
    assert names == (["squeeze", "scale", "reduce", "gradient"] if se else [])


def test_sum_and_relu_stand_aside(by: str) -> None:
    ours, _ = pair()
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    assert sum_relu(ours, y, y.float()) is None
    assert sum_relu(ours, y, y[:1]) is None
    assert sum_relu(nn.GroupNorm(2, 6).double(), y, y) is None
    hooked = copy.deepcopy(ours)
    hooked.register_forward_hook(lambda *args: None)
    assert sum_relu(hooked, y, y) is None
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        assert sum_relu(ours, y, y) is None
    finally:
        handle.remove()
