"""Batch norm, activation and SE by Triton kernels: passes against the reference, and steps against float64 autograd."""

from typing import Any

import pytest
import torch

from senet.nn.fused import reference_activated, set_fused
from senet.nn.fused.triton import activated_passes, tiles
from senet.nn.fused.triton.tiles import Plan
from tests.helpers import assert_close
from tests.nn.fused.pass_arguments import ACTIVATED_PASSES, arguments_of
from tests.nn.fused.test_activated import ACTIVATIONS, Fused, Separate, laid_out, learn, pair
from tests.slow import fast_if

pytestmark = pytest.mark.usefixtures("restored")


@pytest.mark.parametrize("name", ACTIVATED_PASSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("dtype", "layout"), [(torch.float32, torch.contiguous_format), (torch.bfloat16, torch.channels_last)]
)
@pytest.mark.parametrize("shape", [(3, 6, 5, 4), (2, 3, 9, 37)])
@fast_if(
    lambda activation, dtype, shape: (
        (dtype == torch.float32) == (shape == (3, 6, 5, 4)) and (activation == "silu" or dtype == torch.float32)
    )
)
def test_passes(
    name: str, activation: Any, dtype: torch.dtype, layout: torch.memory_format, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    arguments = arguments_of(ACTIVATED_PASSES[name], shape, dtype, layout)
    expected = getattr(reference_activated, name)(*arguments, activation)
    found = getattr(activated_passes, name)(*arguments, activation)
    pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected)), strict=True)
    for place, (one, other) in enumerate(pairs):
        if name == "activated_squeeze" and place in (1, 2, 4):  # pivots differ, and what is relative to them
            continue
        assert_close(one, other, 2e-5 if dtype == torch.float32 else 2e-2)


def compare(ours: Fused, theirs: Separate, y: torch.Tensor, g: torch.Tensor, relative: float = 5e-6) -> None:
    """One step of float32 parameters, by kernels, against the same in float64."""
    found, expected = learn(ours.float(), y, g), learn(theirs, y.double(), g.double())
    assert found["out"].stride() == y.stride()
    for name, x in expected.items():
        is_map = name in ("out", "y")
        tolerance = max(relative, 2 * torch.finfo(y.dtype).eps if is_map else 0)
        assert_close(found[name].to(x.dtype), x, tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((3, 20, 5, 7), "channels last"),
        ((3, 20, 5, 7), "contiguous"),
        ((2, 17, 9, 31), "channels last"),
        ((2, 5, 3, 4, 3), "channels last"),
        ((5, 33, 9), "contiguous"),
        ((9, 8, 1, 1), "contiguous"),
    ],
    ids=str,
)
@fast_if(lambda activation, shape, layout: activation == "silu" or (shape, layout) == ((3, 20, 5, 7), "channels last"))
def test_against_float64(activation: str, shape: tuple[int, ...], layout: str) -> None:
    torch.manual_seed(0)
    set_fused("triton")
    ours, theirs = pair(activation, channels=shape[1], dim=len(shape) - 2)
    compare(ours, theirs, laid_out(torch.randn(shape) + 3, layout), torch.randn(shape))


@pytest.mark.parametrize("options", [{"affine": False}, {"momentum": None}, {"track_running_stats": False}], ids=str)
def test_options_of_batch_norm(options: dict[str, Any]) -> None:
    set_fused("triton")
    compare(*pair(**options), torch.randn(3, 6, 4, 5), torch.randn(3, 6, 4, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("whole", [False, True], ids=["autocast", "half"])
@fast_if(lambda dtype: dtype == torch.bfloat16)
def test_half_precision(dtype: torch.dtype, whole: bool) -> None:
    torch.manual_seed(0)
    exact = pair(channels=16)[1]
    y, g = torch.randn(4, 16, 9, 8).to(dtype), torch.randn(4, 16, 9, 8).to(dtype)
    results = []
    for module, how in zip(pair(channels=16), ("triton", "off"), strict=True):
        set_fused(how)
        module.load_state_dict(exact.state_dict())
        module.to(dtype if whole else torch.float32)
        with torch.autocast("cpu", dtype, enabled=not whole):
            results.append(learn(module, y, g))
    for name, x in learn(exact, y.double(), g.double()).items():
        errors = [float((found[name].double() - x).abs().max() / x.abs().max()) for found in results]
        assert errors[0] <= max(2 * errors[1], 2 * torch.finfo(dtype).eps), (name, errors)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, by which Triton interprets
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["y", "g"])
@fast_if(lambda activation, value, where: activation == "silu" or (where == "y" and value != float("inf")))
def test_not_finite(activation: str, value: float, where: str) -> None:
    """What is not finite by the reference is not by the kernels, and nothing else."""
    ours, _ = pair(activation, dtype=torch.float32)
    with torch.no_grad():
        ours.bn.weight[2], ours.bn.bias[2] = 0.1, -9.0
    maps = {"y": torch.randn(3, 6, 4, 5), "g": torch.randn(3, 6, 4, 5)}
    maps[where][1, 3, 2, 1] = value
    results = []
    for how in ("triton", "aten"):
        set_fused(how)
        results.append(learn(ours, **maps))
        ours.zero_grad()
    for name, x in results[0].items():
        if not name.startswith("bn.running"):
            assert torch.equal(x.isfinite(), results[1][name].isfinite()), name


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of pixels that are masked
def test_a_large_mean() -> None:
    set_fused("triton")
    ours, theirs = pair(channels=8)
    compare(ours, theirs, torch.randn(6, 8, 9, 10) + 1e4, torch.randn(6, 8, 9, 10), 2e-3)


def test_deterministic() -> None:
    set_fused("triton")
    y, g = torch.randn(3, 40, 9, 9), torch.randn(3, 40, 9, 9)
    ours, _ = pair(channels=40, momentum=0.0, dtype=torch.float32)
    once = {name: x.clone() for name, x in learn(ours, y, g).items()}
    ours.zero_grad()
    for name, x in learn(ours, y, g).items():
        assert name == "bn.num_batches_tracked" or torch.equal(x, once[name]), name


@pytest.mark.parametrize("layout", ["channels last", "contiguous"])
def test_with_offsets_of_64_bits(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    class Large(Plan):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.large = True

    monkeypatch.setattr(tiles, "Plan", Large)
    monkeypatch.setattr(tiles, "_plans", {})
    set_fused("triton")
    compare(*pair(), laid_out(torch.randn(3, 6, 9, 31), layout), torch.randn(3, 6, 9, 31))
