"""Errors against float64 autograd: batch norm, SE, sum and ReLU in training, over dtypes and memory layouts."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import senet
from senet.nn.sum_relu import sum_relu

__all__ = ["TOLERANCES", "numerics"]

# Largest relative error (of norms) that is taken for rounding. Only maps are rounded to the dtype.
TOLERANCES = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 4e-3}
LAYOUTS = ("contiguous", "channels_last", "3-D")
SHAPES = ((6, 40, 7, 9), (3, 64, 12, 12), (5, 16, 28, 28), (40, 256, 14, 14))
SMALL = ((3, 8, 4, 5),)
# What is normalized has a mean of 10 times its deviation, where sums without a pivot lose digits.
OFFSET = 10.0
# The gradient is 0 where the sum is this close to 0: there rounding decides on which side of the ReLU it is.
EDGE = 0.05


def numerics(device: str, small: bool) -> dict[str, Any]:
    """The largest relative error of each dtype, layout and quantity; and whether two runs give the same bits.

    Quantities: the output ("out"), the running statistics, and the gradients of map, skip, batch norm and SE.
    """
    errors, same = {}, True
    for dtype in TOLERANCES:
        for layout in LAYOUTS:
            worst: dict[str, float] = {}
            for number, shape in enumerate(SMALL if small else SHAPES):
                for with_skip in (False, True):
                    inputs = _inputs(shape, layout, dtype, with_skip, seed=number)
                    expected = _reference(inputs)
                    found, again = (_ours(inputs, layout, dtype, device) for _ in range(2))
                    same = same and all(torch.equal(found[name], again[name]) for name in found)
                    for name, value in found.items():
                        error, before = _error(value, expected[name]), worst.get(name, 0.0)
                        worst[name] = before if error <= before else error  # NaN is larger than anything
            errors[f"{dtype}, {layout}"] = worst
    over = [
        f"{case}, {name}: {error:.1e}"
        for case, found in errors.items()
        for name, error in found.items()
        if not error <= TOLERANCES[case.partition(",")[0]]
    ]
    return {"errors": errors, "over tolerance": over, "same bits twice": same}


def _inputs(shape: tuple[int, ...], layout: str, dtype: str, with_skip: bool, seed: int) -> dict[str, Tensor]:
    """Float64 values that the dtype holds exactly (parameters: float32)."""
    generator = torch.Generator().manual_seed(seed)
    C, hidden = shape[1], max(1, shape[1] // 4)
    if layout == "3-D":
        shape = (*shape[:2], shape[2] * shape[3])

    def draw(*size: int, dtype: str = "float32") -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.double).to(getattr(torch, dtype)).double()

    offset = OFFSET * draw(1, C, *(1,) * (len(shape) - 2))
    found = {"y": (draw(*shape) + offset).to(getattr(torch, dtype)).double(), "g": draw(*shape, dtype=dtype)}
    if with_skip:
        found["skip"] = draw(*shape, dtype=dtype)
    found |= {"weight": draw(C), "bias": draw(C), "fc1.weight": draw(hidden, C) / C**0.5, "fc1.bias": draw(hidden)}
    found |= {"fc2.weight": draw(C, hidden) / hidden**0.5, "fc2.bias": draw(C)}
    found = {name: value if name in ("y", "g", "skip") else value.float().double() for name, value in found.items()}
    if with_skip:
        found["g"] = found["g"] * (_before_relu(found).abs() > EDGE)
    return found


def _before_relu(v: dict[str, Tensor], running: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The paper's equations behind PyTorch's batch norm, plus the skip."""
    mean, var = running or (None, None)
    u = F.batch_norm(v["y"], mean, var, v["weight"], v["bias"], True, 0.1, 1e-5)
    h = torch.relu(u.flatten(2).mean(2) @ v["fc1.weight"].T + v["fc1.bias"])
    s = torch.sigmoid(h @ v["fc2.weight"].T + v["fc2.bias"])
    out = u * s.reshape(*s.shape, *(1,) * (u.ndim - 2))
    return out + v["skip"] if "skip" in v else out


def _reference(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    v = {name: value.clone().requires_grad_(name != "g") for name, value in inputs.items()}
    C = v["y"].shape[1]
    running = (torch.zeros(C, dtype=torch.double), torch.ones(C, dtype=torch.double))
    out = _before_relu(v, running)
    return _results(out.relu() if "skip" in v else out, running, v)


def _ours(inputs: dict[str, Tensor], layout: str, dtype: str, device: str) -> dict[str, Tensor]:
    C, hidden = inputs["y"].shape[1], len(inputs["fc1.bias"])
    bn = senet.SEBatchNorm(C, se=senet.SqueezeExcitation(C, hidden_channels=hidden))
    with torch.no_grad():
        for name, parameter in bn.named_parameters():
            parameter.copy_(inputs[name.removeprefix("se.")].reshape(parameter.shape))
    bn.to(device)
    placed = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    put: Callable[[str], Tensor] = lambda name: inputs[name].to(device, getattr(torch, dtype), memory_format=placed)  # noqa: E731
    named = (name for name in ("y", "g", "skip") if name in inputs)
    maps: dict[str, Tensor] = {name: put(name).requires_grad_(name != "g") for name in named}
    half = dtype != "float32"
    with torch.autocast(device, getattr(torch, dtype) if half else None, enabled=half):
        out = None
        if "skip" in maps:
            out = sum_relu(bn, maps["y"], maps["skip"])
            out = (bn(maps["y"]) + maps["skip"]).relu() if out is None else out
        else:
            out = bn(maps["y"])
    parameters: dict[str, Tensor] = {name.removeprefix("se."): parameter for name, parameter in bn.named_parameters()}
    assert bn.running_mean is not None
    assert bn.running_var is not None
    return _results(out, (bn.running_mean, bn.running_var), {**maps, **parameters})


def _results(out: Tensor, running: tuple[Tensor, Tensor], v: dict[str, Tensor]) -> dict[str, Tensor]:
    names = [name for name in v if name != "g"]
    gradients = torch.autograd.grad(out, [v[name] for name in names], v["g"].to(out.dtype))
    found = {"out": out.detach(), "running_mean": running[0], "running_var": running[1]}
    return found | {f"d {name}": gradient for name, gradient in zip(names, gradients, strict=True)}


def _error(found: Tensor, expected: Tensor) -> float:
    expected = expected.reshape(found.shape)
    return float((found.double().cpu() - expected).norm() / expected.norm().clamp(min=1e-9))
