"""Batch norm, SE, sum and ReLU in all its options, against PyTorch's modules in float64 and in the same precision."""

import copy
import itertools
import random
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet import SEBatchNorm, SqueezeExcitation
from senet.nn.batch_norm import BATCH_NORMS
from senet.nn.sum_relu import sum_relu
from tests.helpers import randomise

FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels last": torch.channels_last,
    "channels last 3d": torch.channels_last_3d,
}

OPTIONS: dict[str, tuple[Any, ...]] = {
    "gate": ("sigmoid", "hard_sigmoid", "tanh", "relu", None),
    "activation": ("relu", "silu"),
    "bias": (True, False),
    "gain": (1.0, 2.0),
    "skip": (True, False),
    "affine": (True, False),
    "running": (True, False),
    "momentum": (0.1, None),
    "dtype": (torch.float32, torch.bfloat16, torch.float16),
    "half": (False, True),
    "layout": tuple(FORMATS),
    "shape": ((2, 24, 7), (3, 24, 5, 7), (2, 40, 2, 3, 3), (4, 20, 1, 1), (1, 24, 6, 6), (9, 16, 3, 2)),
}


@dataclass(frozen=True)
class Case:
    """One combination; `gate` None leaves SE out, `half` has parameters of the maps' dtype."""

    gate: str | None
    activation: str
    bias: bool
    gain: float
    skip: bool
    affine: bool
    running: bool
    momentum: float | None
    dtype: torch.dtype
    half: bool
    layout: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        named = vars(self).items()
        return " ".join(key if value is True else str(value) for key, value in named if value is not False)


def _possible(case: dict[str, Any]) -> bool:
    """Channels last needs its number of axes, and one sample is its own mean: its squeeze is 0 but for rounding.

    Without SE and a sum, batch norm is PyTorch's own.
    """
    ranks = {"contiguous": (3, 4, 5), "channels last": (4,), "channels last 3d": (5,)}
    plain = case["gate"] is None
    return (
        len(case["shape"]) in ranks[case["layout"]]
        and (case["shape"][0] > 1 or case["affine"])
        and not (plain and (len(case["shape"]) != 4 or not case["skip"]))
    )


def pairwise(seed: int = 0) -> list[Case]:
    """Cases in which each possible pair of values of two options occurs."""
    draw = random.Random(seed)
    keys = list(OPTIONS)
    drawn = ({key: draw.choice(values) for key, values in OPTIONS.items()} for _ in itertools.count())
    cases: list[Case] = []
    seen: set[Any] = set()
    misses = 0
    while misses < 20:
        candidates = [case for case in itertools.islice(drawn, 300) if _possible(case)]
        best = max(candidates, key=lambda case: len(_pairs(case, keys) - seen))
        misses = 0 if _pairs(best, keys) - seen else misses + 1
        if not misses:
            cases.append(Case(**best))
            seen |= _pairs(best, keys)
    return cases


def _pairs(case: dict[str, Any], keys: list[str]) -> set[Any]:
    return {(one, case[one], two, case[two]) for one, two in itertools.combinations(keys, 2)}


def build(case: Case) -> tuple[nn.Module, nn.Sequential]:
    """Ours, and batch norm and SE one after the other; of the same weights and statistics, in float32."""
    dim, channels = len(case.shape) - 2, case.shape[1]
    bn = randomise(
        BATCH_NORMS[dim](channels, affine=case.affine, track_running_stats=case.running, momentum=case.momentum)
    )
    if case.gate is None:
        return copy.deepcopy(bn), nn.Sequential(bn)
    se = SqueezeExcitation(channels, 4, gate=case.gate, activation=case.activation, bias=case.bias, gain=case.gain)
    randomise(se)
    return copy.deepcopy(SEBatchNorm.from_batch_norm(bn, se)), nn.Sequential(bn, se)


def run(module: Any, y: Tensor, skip: Tensor | None, g: Tensor, fused: bool) -> dict[str, Tensor]:
    """The output, running statistics, and all gradients."""
    inputs = [
        x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in (y, skip) if x is not None
    ]
    if fused and skip is not None:
        out = sum_relu(module, *inputs)
        assert out is not None
    else:
        out = module(inputs[0]) if skip is None else (module(inputs[0]) + inputs[1]).relu()
    assert out.dtype == y.dtype
    out.backward(g.to(out.dtype))
    found = {"out": out.detach(), "y": inputs[0].grad}
    if skip is not None:
        found["skip"] = inputs[1].grad
    found |= {
        name.removeprefix("0.").removeprefix("1.").removeprefix("se."): x.grad for name, x in module.named_parameters()
    }
    bn = module[0] if isinstance(module, nn.Sequential) else module
    found |= {name: x.clone() for name, x in bn.named_buffers(recurse=False)}
    return {name: x for name, x in found.items() if x is not None}


def error(found: Tensor, truth: Tensor) -> float:
    return float((found.cpu().double() - truth).norm() / truth.norm().clamp(min=1e-6))


def check(case: Case, device: str = "cpu") -> None:
    """No result is further from float64 than twice the error of PyTorch's modules in the same precision."""
    torch.manual_seed(1)
    ours, theirs = build(case)
    exact = copy.deepcopy(theirs).double()
    y, skip, g = (torch.randn(case.shape).to(case.dtype).to(memory_format=FORMATS[case.layout]) for _ in range(3))
    skips = skip if case.skip else None
    if case.half:
        ours, theirs, exact = ours.to(case.dtype), theirs.to(case.dtype), exact.to(case.dtype).double()
    if case.skip:  # where rounding decides on which side of the ReLU a value is, nothing comes back
        g = g * ((copy.deepcopy(exact)(y.double()) + skip.double()).abs() > 0.1)
    truth = run(exact, y.double(), None if skips is None else skips.double(), g.double(), False)
    y, g, skips = (None if x is None else x.to(device) for x in (y, g, skips))  # type: ignore[assignment]
    ours, theirs = ours.to(device), theirs.to(device)
    cast = torch.autocast(device, case.dtype) if case.dtype != torch.float32 and not case.half else nullcontext()
    with cast:
        modules = run(theirs, y, skips, g, False)
        found = run(ours, y, skips, g, True)
    assert found.keys() == truth.keys()
    assert found["out"].stride() == y.stride() or y.is_contiguous()
    floor = 5e-6 if case.dtype == torch.float32 else 1.5 * torch.finfo(case.dtype).eps
    for name, value in truth.items():
        assert found[name].dtype == modules[name].dtype, name
        if not value.is_floating_point():
            assert torch.equal(found[name].cpu(), value), name
            continue
        errors = error(found[name], value), error(modules[name], value)
        assert errors[0] <= max(2 * errors[1], floor), f"{name}: {errors[0]:.2g}, PyTorch's own {errors[1]:.2g}"
