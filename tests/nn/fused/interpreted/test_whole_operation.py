"""The whole operation by Triton kernels, against float64 autograd."""

from typing import Any

import pytest
import torch

from senet.nn.fused.interface import Needs
from senet.nn.fused.triton import tiles, whole_operation
from tests.helpers import assert_close
from tests.nn.fused.interpreted.reference import EPS, Case
from tests.slow import fast_if

CONTIGUOUS = torch.contiguous_format


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skip": False},
        {"memory_format": CONTIGUOUS},
        {"gate": "hard_sigmoid", "activation": "silu"},
        {"gate": "tanh", "biases": False},
        {"gate": "relu", "gain": 0.5},
        {"weight": False, "bias": False, "running": False},
        {"bias": False},
        {"momentum": None},
        {"momentum": None, "batches": None},
        {"momentum": 1.0, "batches": 0},
        {"hidden": None},
        {"hidden": None, "skip": False, "weight": False, "bias": False},
        {"shape": (5, 33, 9), "memory_format": CONTIGUOUS, "hidden": 1},
        {"shape": (2, 5, 3, 4, 3), "memory_format": torch.channels_last_3d},
        {"shape": (2, 5, 3, 4, 3), "memory_format": CONTIGUOUS},
        {"shape": (9, 8, 1, 1)},
        {"shape": (3, 1, 4, 4), "hidden": 1},
        {"shape": (1, 3, 2, 3), "hidden": 17},
        {"shape": (2, 130, 3, 3), "hidden": 100},
        {"shape": (2, 17, 9, 31)},
        {"shape": (2, 17, 9, 31), "memory_format": CONTIGUOUS, "hidden": 70},
    ],
    ids=str,
)
def test_against_float64(options: dict[str, Any]) -> None:
    Case(**options).compare()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("parameter_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype, parameter_dtype: torch.dtype) -> None:
    """Parameters of float32 have gradients of float32's accuracy, whatever the maps are."""
    Case(dtype=dtype, parameter_dtype=parameter_dtype, skip=False).compare(2e-6)


@pytest.fixture
def separate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels of large N C, for maps of any size."""
    monkeypatch.setattr(tiles, "_SMALL", (0, 0))
    monkeypatch.setattr(tiles, "_plans", {})


@pytest.mark.usefixtures("separate")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gate": "hard_sigmoid", "activation": "silu"},
        {"gate": "tanh", "biases": False, "skip": False},
        {"weight": False, "bias": False, "running": False},
        {"bias": False, "momentum": None, "gate": "relu"},
        {"shape": (34, 17, 3), "memory_format": CONTIGUOUS, "hidden": 17},
        {"shape": (2, 530, 1, 1), "hidden": 3},
        {"shape": (2, 17, 9, 31), "parameter_dtype": torch.bfloat16},
    ],
    ids=str,
)
@fast_if(lambda options: options.get("shape") != (2, 530, 1, 1))
def test_separate_kernels(options: dict[str, Any]) -> None:
    """Of gather_stats, fc1 and fc2, and gates, hidden and coefficients."""
    Case(**options).compare()


def test_one_kernel_where_small() -> None:
    plans = [tiles.Plan(torch.empty(shape, device="meta"), 4) for shape in ((64, 64, 8, 8), (128, 64, 8, 8))]
    forward = [whole_operation._forward(plan, False, False, "sigmoid", "relu") for plan in plans]
    backward = [whole_operation._backward(plan, True, True, "sigmoid", "relu") for plan in plans]
    assert [len(x._steps) for x in (*forward, *backward)] == [3, 5, 3, 5]


@pytest.mark.parametrize("samples", [70, pytest.param(4096, marks=pytest.mark.slow)])
def test_many_samples(samples: int) -> None:
    Case(shape=(samples, 3, 2, 1), hidden=2).compare(1e-5)


@pytest.mark.parametrize("needed", [("y",), ("skip",), ("weight", "b1"), ("w1",), ("w2", "b2"), ("b2",), ()])
@pytest.mark.parametrize("hidden", [5, None])
@fast_if(lambda needed, hidden: needed in (("y",), ("w1",)) if hidden else needed == ("weight", "b1"))
def test_only_what_is_needed(needed: tuple[str, ...], hidden: int | None) -> None:
    case = Case(hidden=hidden)
    every, some = case.found(), case.found(Needs(**{name: name in needed for name in Needs._fields}))
    for name in Needs._fields:
        if name in needed and every["d" + name] is not None:
            assert torch.equal(every["d" + name], some["d" + name])
        else:
            assert some["d" + name] is None


def test_deterministic() -> None:
    case = Case(shape=(7, 40, 9, 9))
    once, twice = case.found(), case.found()
    for name, x in once.items():
        again = twice[name]
        assert x is not None
        assert again is not None
        assert torch.equal(x, again), name


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, by which Triton interprets
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["y", "skip", "g"])
@pytest.mark.parametrize("hidden", [5, None])
def test_not_finite(where: str, value: float, hidden: int | None) -> None:
    """What is not finite by PyTorch's own operations is not by the kernels, and nothing else; NaN stays NaN.

    A difference of two infinite terms may be NaN by one formula and infinite by another.
    """
    case = Case(shape=(3, 20, 3, 5), hidden=hidden)
    case.values[where][1, 7, 2, 1] = value
    found, expected = case.found(), case.expected()
    bad = 0
    for name, x in found.items():
        y = expected.get(name)
        if x is None or y is None:
            continue
        assert torch.equal(x.isfinite(), y.isfinite()), name
        assert value == float("inf") or torch.equal(x.isnan(), y.isnan()), name
        bad += int((~x.isfinite()).sum())
        finite = y.isfinite()
        if finite.any():
            assert_close(x[finite].double(), y[finite], 2e-6)
    assert bad


@pytest.mark.parametrize("memory_format", [torch.channels_last, CONTIGUOUS])
@pytest.mark.parametrize("blank", ["first image", "pixels in the middle", "nothing"])
def test_large_mean(blank: str, memory_format: torch.memory_format) -> None:
    """A mean of 10^4 spreads costs no digits, whatever lies where a pivot might come from."""
    case = Case(shape=(6, 8, 9, 10), hidden=2, mean=0.0, memory_format=memory_format, skip=False)
    y = case.values["y"] + 1e4
    if blank == "first image":
        y[0] = 0
    elif blank == "pixels in the middle":
        y[:, :, 4, 4:6] = 0
    case.values["y"] = case.rounded("y", y)
    case.compare(3e-5 if blank == "pixels in the middle" else 5e-6)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("options", [{}, {"hidden": None}, {"weight": False, "bias": False, "biases": False}])
def test_evaluate(options: dict[str, Any], skip: bool) -> None:
    case = Case(skip=skip, **options)
    v = case.values
    u = torch.nn.functional.batch_norm(v["y"], v["rmean"], v["rvar"], v.get("weight"), v.get("bias"), False, 0.0, EPS)
    se = case.excitation()
    if se is not None:
        z = u.mean((2, 3))
        b1, b2 = v.get("b1"), v.get("b2")
        x = torch.nn.functional.linear(z, v["w1"], b1).relu()
        u = u * (2 * torch.nn.functional.linear(x, v["w2"], b2).sigmoid())[:, :, None, None]
    if skip:
        u = (u + v["skip"]).relu()
    y, mean, var = case.tensor("y"), case.tensor("rmean"), case.tensor("rvar")
    assert y is not None
    assert mean is not None
    assert var is not None
    before = mean.clone(), var.clone()
    arguments = (case.tensor("weight"), case.tensor("bias"), EPS, se, case.tensor("skip"))
    assert_close(whole_operation.evaluate(y, mean, var, *arguments).double(), u, 2e-6)
    assert torch.equal(mean, before[0])
    assert torch.equal(var, before[1])
