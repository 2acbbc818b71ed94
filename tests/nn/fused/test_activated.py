"""Batch norm, activation and SE in fused passes, against PyTorch's modules and autograd in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from senet.nn.fused import (
    Running,
    backends,
    can_fuse_activated,
    dispatch,
    normalize_activate,
    reference_activated,
    set_fused,
)
from senet.nn.fused.reference_activated import activation_gradient
from tests.helpers import assert_close
from tests.nn.fused.pass_arguments import ACTIVATED_PASSES, arguments_of

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hard_swish": nn.Hardswish}


class Separate(nn.Module):
    """A batch norm, an activation and SE as networks have them: its FCs are 1x1 convolutions."""

    def __init__(self, activation: str = "silu", channels: int = 6, dim: int = 2, **options: Any) -> None:
        super().__init__()
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1]
        self.bn = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dim - 1](channels, **options)
        self.activation = activation
        self.act = ACTIVATIONS[activation]()
        self.reduce, self.inner, self.expand = convolution(channels, 3, 1), nn.SiLU(), convolution(3, channels, 1)
        self.gate = nn.Sigmoid()
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.6)
        if self.bn.running_mean is not None:
            nn.init.normal_(self.bn.running_mean)

    def gates(self, z: Tensor) -> Tensor:
        return self.gate(self.expand(self.inner(self.reduce(z))))  # type: ignore[no-any-return]

    def forward(self, y: Tensor) -> Tensor:
        u = self.act(self.bn(y))
        return u * self.gates(u.mean(list(range(2, y.ndim)), keepdim=True))  # type: ignore[no-any-return]


class Fused(Separate):
    """The same by `normalize_activate`."""

    def forward(self, y: Tensor) -> Tensor:
        bn, ones = self.bn, [1] * (y.ndim - 2)
        running = None
        if bn.running_mean is not None:
            running = Running(bn.running_mean, bn.running_var, bn.num_batches_tracked, bn.momentum)

        def excite(z: Tensor) -> Tensor:
            return self.gates(z.reshape(*z.shape, *ones)).flatten(1)

        return normalize_activate(y, bn.weight, bn.bias, running, bn.eps, self.activation, excite)  # type: ignore[arg-type]


def pair(*arguments: Any, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[Fused, Separate]:
    ours = Fused(*arguments, **options).to(dtype)
    theirs = Separate(*arguments, **options).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def learn(module: nn.Module, y: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Output, gradients and statistics of one step."""
    x = y.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = module(x)
    out.backward(g.to(out.dtype))
    found = {"out": out.detach(), "y": x.grad}
    found |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return found | dict(module.named_buffers())  # type: ignore[return-value]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], relative: float = 1e-12) -> None:
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        if float(x.abs().max()) < 1e-11:  # nothing but rounding
            assert float(found[name].abs().max()) < 1e-10, name
        else:
            assert_close(found[name], x, relative)


def laid_out(y: Tensor, layout: str) -> Tensor:
    if layout == "gaps":
        return torch.stack([y, y], -1)[..., 0]
    if layout == "channels last" and y.ndim > 3:
        return y.contiguous(memory_format=torch.channels_last if y.ndim == 4 else torch.channels_last_3d)
    return y


def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the passes that are run."""
    names: list[str] = []

    def counted(name: str, run: Any) -> Any:
        def call(*arguments: Any) -> Any:
            names.append(name)
            return run(*arguments)

        return call

    for name in (name for name in dispatch.__all__ if name.startswith("activated")):
        monkeypatch.setattr(dispatch, name, counted(name.removeprefix("activated_"), getattr(dispatch, name)))
    return names


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "gaps"])
@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 6, 4, 5), (2, 6, 3, 2, 4), (1, 6, 7, 5), (4, 6, 1, 1)], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_against_float64(
    activation: str, shape: tuple[int, ...], layout: str, restored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_fused("aten")
    names = count(monkeypatch)
    ours, theirs = pair(activation, dim=len(shape) - 2)
    y, g = laid_out(torch.randn(shape, dtype=torch.float64) + 1, layout), torch.randn(shape, dtype=torch.float64)
    assert can_fuse_activated(y)
    assert_same(learn(ours, y, g), learn(theirs, y, g))
    assert names == ["squeeze", "scale", "reduce", "gradient"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_each_backend(by: str, activation: str, layout: str) -> None:
    ours, theirs = pair(activation)
    y, g = laid_out(torch.randn(3, 6, 4, 5, dtype=torch.float64), layout), torch.randn(3, 6, 4, 5, dtype=torch.float64)
    for _ in range(2):
        found = learn(ours, y, g)
        assert_same(found, learn(theirs, y, g))
    assert found["out"].stride() == y.stride()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ACTIVATED_PASSES)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_passes_agree(by: str, name: str, activation: str, layout: str) -> None:
    formats = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    arguments = arguments_of(ACTIVATED_PASSES[name], (3, 6, 5, 4), torch.float64, formats[layout])
    with torch.no_grad():
        expected = getattr(reference_activated, name)(*arguments, activation)
        found = getattr(backends.backend_for(torch.device("cpu")).passes, name)(*arguments, activation)
    for one, other in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected)), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    "options",
    [{"affine": False}, {"track_running_stats": False}, {"momentum": None}, {"eps": 0.1}],
    ids=str,
)
def test_options_of_batch_norm(options: dict[str, Any], restored: None) -> None:
    set_fused("aten")
    ours, theirs = pair(**options)
    for _ in range(2):
        y, g = torch.randn(3, 6, 4, 5, dtype=torch.float64), torch.randn(3, 6, 4, 5, dtype=torch.float64)
        assert_same(learn(ours, y, g), learn(theirs, y, g))


@pytest.mark.parametrize(
    "frozen", [("y",), ("bn.weight",), ("bn.bias", "y"), ("reduce.weight", "reduce.bias")], ids="+".join
)
def test_only_some_gradients(frozen: tuple[str, ...], restored: None) -> None:
    set_fused("aten")
    y = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    results = []
    for module in pair():
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in frozen)
        x = y.clone().requires_grad_("y" not in frozen)
        module(x).square().sum().backward()
        results.append([x.grad, *[parameter.grad for parameter in module.parameters()]])
    for one, other in zip(*results, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_gradients(by: str, activation: str) -> None:
    modules = pair(activation, channels=2)
    y = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    found = []
    for module in modules:
        inputs = [y, *module.parameters()]
        first = torch.autograd.grad((module(y) + 1).pow(3).sum(), inputs, create_graph=True)
        total = torch.stack([x.pow(2).sum() for x in first]).sum()
        found.append([*first, *torch.autograd.grad(total, inputs)])
    for one, other in zip(*found, strict=True):
        assert_close(one, other, 1e-10)


def test_batched_gradients(by: str) -> None:
    y, g = torch.randn(3, 6, 4, 5, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, 6, 4, 5).double()
    found = [torch.autograd.grad(module(y), y, g, is_grads_batched=True)[0] for module in pair()]
    assert_close(*found)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_a_large_mean_before_an_activation(by: str, layout: str) -> None:
    """In float32, with mean 1e4 and spread 1: no further from float64's truth than PyTorch's own."""
    torch.manual_seed(1)
    exact = pair()[1]
    y = laid_out(torch.randn(8, 6, 16, 16, dtype=torch.float64) + 1e4, layout).float()
    g = torch.randn(8, 6, 16, 16)
    ours, theirs = pair(dtype=torch.float32)
    for module in (ours, theirs):
        module.load_state_dict(exact.state_dict())
    truth, mine, pytorchs = learn(exact, y.double(), g.double()), learn(ours, y, g), learn(theirs, y, g)
    for name, x in truth.items():
        errors = [float((found[name].double() - x).abs().max() / x.abs().max()) for found in (mine, pytorchs)]
        assert errors[0] <= max(2 * errors[1], 1e-6), (name, errors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("whole", [False, True], ids=["autocast", "half"])
@pytest.mark.parametrize("activation", ["silu", "relu6"])
def test_half_precision(by: str, dtype: torch.dtype, whole: bool, activation: str) -> None:
    """Maps in half precision; other tensors in float32, under autocast or with weights of half precision."""
    torch.manual_seed(0)
    exact = pair(activation, channels=16)[1]
    y, g = torch.randn(4, 16, 9, 8).to(dtype), torch.randn(4, 16, 9, 8).to(dtype)
    results = []
    for module in pair(activation, channels=16):
        module.load_state_dict(exact.state_dict())
        module.to(dtype if whole else torch.float32)
        with torch.autocast("cpu", dtype, enabled=not whole):
            results.append(learn(module, y, g))
        assert results[-1]["out"].dtype == dtype
    for name, x in learn(exact, y.double(), g.double()).items():
        errors = [float((found[name].double() - x).abs().max() / x.abs().max()) for found in results]
        assert errors[0] <= max(2 * errors[1], 2 * torch.finfo(dtype).eps), (name, errors)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["y", "g"])
def test_not_finite(by: str, activation: str, value: float, where: str) -> None:
    """What is not finite by PyTorch's own operations is not by the passes, and nothing else."""
    ours, theirs = pair(activation)
    with torch.no_grad():
        for module in (ours, theirs):
            module.bn.weight[2], module.bn.bias[2] = 0.1, -9.0  # passes no gradient, of SiLU little
    maps = {"y": torch.randn(3, 6, 4, 5, dtype=torch.float64), "g": torch.randn(3, 6, 4, 5, dtype=torch.float64)}
    maps[where][1, 3, 2, 1] = value
    found, expected = learn(ours, **maps), learn(theirs, **maps)
    assert any(not x.isfinite().all() for x in expected.values())
    for name, x in expected.items():
        same = found[name].isfinite() == x.isfinite()
        if name == "bn.bias" and where == "y" and activation == "relu6":
            same[3] = True  # PyTorch's vectorized kernel passes no gradient at NaN, and the scalar one does
        assert same.all(), name


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_where_activations_bend(activation: str) -> None:
    """At the bends themselves, and for NaN, as PyTorch has them."""
    v = torch.tensor([-4, -3, -1.5, 0, 1, 3, 5, 6, 7, float("nan")], dtype=torch.float64, requires_grad=True)
    for g in (torch.full_like(v, 2.0), torch.full_like(v, float("nan"))):
        (expected,) = torch.autograd.grad(ACTIVATIONS[activation]()(v), v, g)
        found = activation_gradient(g, v.detach(), activation)  # type: ignore[arg-type]
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-15, equal_nan=True)


def test_saves_one_map(by: str) -> None:
    ours, _ = pair()
    y = torch.randn(4, 6, 8, 8, dtype=torch.float64, requires_grad=True)
    saved: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        ours(1 * y)
    large = [size for size in saved.values() if size > 8 * 4 * 6]
    assert large == [y.untyped_storage().nbytes()]


def test_hooks_inside_se_fire(by: str) -> None:
    modules, seen = pair(), []
    for module in modules:
        module.gate.register_forward_hook(lambda module, args, output: seen.append(output))
        module.reduce.register_full_backward_hook(lambda module, grad_in, grad_out: seen.append(grad_out[0]))
    y, g = torch.randn(3, 6, 4, 4, dtype=torch.float64), torch.randn(3, 6, 4, 4, dtype=torch.float64)
    for module in modules:
        learn(module, y, g)
    assert len(seen) == 4
    assert_close(seen[0], seen[2])
    assert_close(seen[1], seen[3])


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_and_backward_twice(by: str, reentrant: bool) -> None:
    ours, theirs = pair()
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    results = []
    for module in (ours, theirs):
        x = y.clone().requires_grad_()
        loss = checkpoint(module, x, use_reentrant=reentrant).square().sum()
        loss.backward()
        loss = module(2 * x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        results.append([x.grad, *[parameter.grad for parameter in module.parameters()]])
    for one, other in zip(*results, strict=True):
        assert_close(one, other)


def test_without_gradients_statistics_are_taken(by: str) -> None:
    ours, theirs = pair()
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        assert_close(ours(y), theirs(y))
    assert_close(ours.bn.running_var, theirs.bn.running_var)
    assert_close(ours.bn.running_mean, theirs.bn.running_mean)


def test_gates_without_gradients(by: str) -> None:
    """Gates that are constants, as when SE is ablated."""
    y = torch.randn(3, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(2, 6, dtype=torch.float64)
    s = torch.rand(3, 6, dtype=torch.float64)
    out = normalize_activate(y, weight, bias, None, 1e-5, "silu", lambda z: s)
    expected = F.silu(F.batch_norm(y, None, None, weight, bias, True)) * s[:, :, None, None]
    assert_close(out, expected)
    assert_close(*(torch.autograd.grad(x.pow(2).sum(), y)[0] for x in (out, expected)))


def test_under_modes_that_look_at_operations(by: str) -> None:
    ours, theirs = pair()
    y = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        found = ours(y)
    assert counter.get_total_flops() == 2 * 2 * (6 * 3 + 3 * 6)
    assert_close(found, theirs(y))


@pytest.mark.usefixtures("traced")
@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:FutureWarning")
def test_what_is_not_fused(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    set_fused("aten")
    y = torch.randn(2, 6, 5, 5)
    assert can_fuse_activated(y)
    assert not can_fuse_activated(y[:0])
    assert not can_fuse_activated(y[..., 0, 0])
    assert not can_fuse_activated(y.to(torch.int32))
    assert not can_fuse_activated(y.to("meta"))
    with forward_ad.dual_level():
        assert not can_fuse_activated(y)
    seen: list[bool] = []
    torch.func.vmap(lambda x: seen.append(can_fuse_activated(y)) or x)(y)  # type: ignore[func-returns-value]
    torch.jit.trace(lambda x: seen.append(can_fuse_activated(y)) or x, y, check_trace=False)  # type: ignore[func-returns-value, no-untyped-call]
    assert seen == [False, False]
    set_fused("off")
    assert not can_fuse_activated(y)
    set_fused("auto")
    monkeypatch.setitem(backends._selected, ("auto", torch.device("cpu")), "inductor")
    assert not can_fuse_activated(y)
    monkeypatch.setattr(backends, "SMALLEST_ACTIVATED", 300)
    assert can_fuse_activated(y)
    monkeypatch.setitem(backends._selected, ("auto", torch.device("cpu")), "aten")
    assert not can_fuse_activated(y)


def test_errors(restored: None) -> None:
    set_fused("aten")
    one = torch.ones(6)
    with pytest.raises(ValueError, match=r"expected more than 1 value per channel when training, .* \(1, 6, 1, 1\)"):
        normalize_activate(torch.ones(1, 6, 1, 1), one, one, None, 1e-5, "relu", torch.sigmoid)
    with pytest.raises(ValueError, match="hardswish.*hard_swish"):
        normalize_activate(torch.ones(2, 6, 1, 1), one, one, None, 1e-5, "hardswish", torch.sigmoid)  # type: ignore[arg-type]


def test_copies_share_nothing(by: str) -> None:
    ours, _ = pair()
    y, g = torch.randn(3, 6, 4, 4, dtype=torch.float64), torch.randn(3, 6, 4, 4, dtype=torch.float64)
    assert_same(learn(copy.deepcopy(ours), y, g), learn(ours, y, g), 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("shape", [(6, 40, 7, 9), (5, 16, 28, 28), (40, 96, 14, 14), (33, 80, 1, 1)], ids=str)
def test_on_a_gpu(shape: tuple[int, ...], layout: str, dtype: torch.dtype, activation: str, restored: None) -> None:
    """The second step through the direct launch."""
    set_fused("triton")
    ours, theirs = (module.cuda() for module in pair(activation, channels=shape[1]))
    ours.float()
    y, g = (laid_out(torch.randn(shape).to(dtype), layout).cuda() for _ in range(2))
    for _ in range(2):
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            found = learn(ours, y, g)
        for name, x in learn(theirs, y.double(), g.double()).items():
            assert_close(found[name].to(x.dtype), x, 2e-5 if dtype == torch.float32 else 3e-2)
        ours.zero_grad()
        theirs.zero_grad()
