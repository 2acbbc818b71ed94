"""Batch norm, SE, sum and ReLU in float64 by PyTorch's own operations, and the same by the kernels."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from senet.nn.fused.interface import Excitation, Needs, Running
from senet.nn.fused.triton import whole_operation

GATES = {"sigmoid": torch.sigmoid, "hard_sigmoid": F.hardsigmoid, "tanh": torch.tanh, "relu": torch.relu}
ACTIVATIONS = {"relu": torch.relu, "silu": F.silu}
EPS = 1e-3
PARAMETERS = ("weight", "bias", "w1", "b1", "w2", "b2")


@dataclass
class Case:
    """One call: a map's shape, and what batch norm and SE have."""

    shape: tuple[int, ...] = (3, 20, 5, 7)
    hidden: int | None = 5
    gate: str = "sigmoid"
    activation: str = "relu"
    gain: float = 2.0
    biases: bool = True
    skip: bool = True
    weight: bool = True
    bias: bool = True
    running: bool = True
    momentum: float | None = 0.1
    batches: int | None = 2
    dtype: torch.dtype = torch.float32
    parameter_dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.channels_last
    mean: float = 3.0
    device: str = "cpu"
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Draw values, rounded to their dtypes, in float64."""
        torch.manual_seed(0)
        C, H = self.shape[1], self.hidden
        shapes: dict[str, tuple[int, ...]] = {"y": self.shape, "g": self.shape}
        if self.skip:
            shapes["skip"] = self.shape
        if self.weight:
            shapes["weight"] = (C,)
        if self.bias:
            shapes["bias"] = (C,)
        if H is not None:
            shapes |= {"w1": (H, C), "w2": (C, H)} | ({"b1": (H,), "b2": (C,)} if self.biases else {})
        for name, shape in shapes.items():
            x = torch.randn(shape, dtype=torch.float64)
            if name == "y":
                x += self.mean * torch.randn(1, C, *[1] * (len(self.shape) - 2), dtype=torch.float64)
            elif name in ("w1", "w2"):
                x /= shape[1] ** 0.5
            self.values[name] = self.rounded(name, x)
        if self.running:
            self.values |= {"rmean": torch.randn(C).double(), "rvar": torch.rand(C).double() + 0.5}
            for name in ("rmean", "rvar"):
                self.values[name] = self.values[name].to(self.parameter_dtype).double()

    def rounded(self, name: str, x: Tensor) -> Tensor:
        return x.to(self.dtype if name in ("y", "g", "skip") else self.parameter_dtype).double()

    def expected(self) -> dict[str, Tensor | None]:
        """Output, statistics and gradients by float64 autograd."""
        v = {name: x.clone().requires_grad_(name not in ("g", "rmean", "rvar")) for name, x in self.values.items()}
        space = list(range(2, len(self.shape)))
        momentum = (
            (1 / ((self.batches or 0) + 1) if self.batches is not None else 0.0)
            if self.momentum is None
            else self.momentum
        )
        rmean, rvar = v.get("rmean"), v.get("rvar")
        u = F.batch_norm(v["y"], rmean, rvar, v.get("weight"), v.get("bias"), True, momentum, EPS)
        if self.hidden is not None:
            x = ACTIVATIONS[self.activation](F.linear(u.mean(space), v["w1"], v.get("b1")))
            s = self.gain * GATES[self.gate](F.linear(x, v["w2"], v.get("b2")))
            u = u * s.reshape(*s.shape, *[1] * len(space))
        if self.skip:
            u = torch.relu(u + v["skip"])
        inputs = [name for name, x in v.items() if x.requires_grad]
        found: dict[str, Tensor | None] = {"out": u.detach(), "rmean": rmean, "rvar": rvar}
        gradients = torch.autograd.grad(u, [v[name] for name in inputs], v["g"])
        return found | {"d" + name: x for name, x in zip(inputs, gradients, strict=True)}

    def tensor(self, name: str) -> Tensor | None:
        """A value as given to the kernels."""
        x = self.values.get(name)
        if x is None:
            return None
        if name not in ("y", "g", "skip"):
            return x.to(self.device, self.parameter_dtype)
        return x.to(self.device, self.dtype).contiguous(memory_format=self.memory_format)

    def excitation(self) -> Excitation | None:
        if self.hidden is None:
            return None
        w1, b1, w2, b2 = (self.tensor(name) for name in ("w1", "b1", "w2", "b2"))
        assert w1 is not None
        assert w2 is not None
        return Excitation(w1, b1, w2, b2, self.gain, self.gate, self.activation)

    def found(self, needs: Needs | None = None) -> dict[str, Tensor | None]:
        """The same by the kernels."""
        weight, bias, skip, y, g = (self.tensor(name) for name in ("weight", "bias", "skip", "y", "g"))
        rmean, rvar = self.tensor("rmean"), self.tensor("rvar")
        count = None if self.batches is None else torch.tensor(self.batches, device=self.device)
        running = Running(rmean, rvar, count, self.momentum) if rmean is not None and rvar is not None else None
        se = self.excitation()
        assert y is not None
        assert g is not None
        out, keep = whole_operation.forward(y, weight, bias, running, EPS, se, skip)
        gradients = whole_operation.backward(
            g, y, None if skip is None else out, keep, weight, bias, se, EPS, needs or Needs(*[True] * 8)
        )
        if running is not None and count is not None:
            assert int(count) == (self.batches or 0) + 1
        return {"out": out, "rmean": rmean, "rvar": rvar} | {"d" + name: x for name, x in gradients._asdict().items()}

    def compare(self, relative: float = 2e-6, **tolerances: float) -> None:
        """Compare all; errors relative to the largest value; dtypes of few bits have their own."""
        found, expected = self.found(), self.expected()
        for name, x in found.items():
            y = expected.get(name)
            if y is None:
                assert x is None, name
                continue
            assert x is not None, name
            is_map = name in ("out", "dy", "dskip")
            assert x.shape == y.shape
            assert x.dtype == (self.dtype if is_map else self.parameter_dtype), name
            if is_map:
                assert x.is_contiguous(memory_format=self.memory_format)
            eps = torch.finfo(x.dtype).eps
            tolerance = tolerances.get(name, max(relative, 2 * eps))
            error = float((x.double().cpu() - y).abs().max() / y.abs().max().clamp(min=1e-30))
            assert error <= tolerance, f"{name}: {error:.2g} above {tolerance:.2g}"
