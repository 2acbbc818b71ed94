"""The whole operation by PyTorch's own operations: a backend that needs neither a GPU nor Triton."""

from collections import Counter

import torch
from torch import Tensor

from senet.nn.fused import reference
from senet.nn.fused.interface import Excitation, Gradients, Needs, Running
from senet.nn.fused.operations import count_batch


class Reference:
    """A backend whose backward is autograd's, and which counts its calls.

    As kernels do, it leaves the version counters of running statistics alone, rounds maps alone, and reads parameters
    as they are, under autocast too.
    """

    def __init__(self, most: int = 512) -> None:
        self.calls: Counter[str] = Counter()
        self.needs: list[Needs] = []
        self.maps: list[Tensor] = []
        self.most = most

    def fits(self, channels: int, hidden: int, samples: int) -> bool:
        return hidden <= self.most

    def forward(
        self,
        y: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running: Running | None,
        eps: float,
        se: Excitation | None,
        skip: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        self.calls["forward"] += 1
        self.maps = [y] if skip is None else [y, skip]
        with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
            p = reference.pivot(y)
            m, q = reference.stats(y, p)
            if running is not None:
                mean, var = m.mean(0), q.mean(0) - m.mean(0) ** 2
                values = y.numel() // y.shape[1]
                data = Running(running.mean.data, running.var.data, *_data(running))
                share = count_batch(data)
                for buffer, value in zip(data[:2], (p + mean, var * values / (values - 1)), strict=True):
                    buffer.copy_(buffer + (value - buffer.float()) * share)
            x = reference.recalibrate(y, weight, bias, eps, se)
            return (x if skip is None else (x.float() + skip).relu().to(y.dtype)), p

    def backward(
        self,
        g: Tensor,
        y: Tensor,
        out: Tensor | None,
        keep: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        se: Excitation | None,
        eps: float,
        needs: Needs,
    ) -> Gradients:
        self.calls["backward"] += 1
        self.needs.append(needs)
        self.maps = [g, y] if out is None else [g, y, out]
        g = g if out is None else torch.where(out <= 0, 0, g)
        values = (y, weight, bias, *((None,) * 4 if se is None else se[:4]))
        leaves = [None if x is None else x.detach().requires_grad_(n) for x, n in zip(values, needs[:7], strict=True)]
        inputs = [x for x in leaves if x is not None and x.requires_grad]
        with torch.enable_grad(), torch.autocast(y.device.type, enabled=False):
            block = None if se is None else Excitation(leaves[3], leaves[4], leaves[5], leaves[6], *se[4:])  # type: ignore[arg-type]
            x = reference.recalibrate(leaves[0], leaves[1], leaves[2], eps, block)  # type: ignore[arg-type]
            found = iter(torch.autograd.grad(x, inputs, g, allow_unused=True) if inputs else ())
        every = [next(found) if x is not None and x.requires_grad else None for x in leaves]
        return Gradients._make([*every, g if needs.skip else None])

    def evaluate(
        self,
        y: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        se: Excitation | None,
        skip: Tensor | None,
    ) -> Tensor:
        self.calls["evaluate"] += 1
        self.maps = [y] if skip is None else [y, skip]
        a = torch.rsqrt(var.float() + eps) * (1 if weight is None else weight)
        b = (0 if bias is None else bias) - mean * a
        u = y.float() * reference.unsqueeze_spatial(a, y) + reference.unsqueeze_spatial(b, y)
        x = u if se is None else u * reference.unsqueeze_spatial(reference.excite(u.flatten(2).mean(2), se), u)
        return (x if skip is None else (x + skip).relu()).to(y.dtype)


def _data(running: Running) -> tuple[Tensor | None, float | None]:
    return (None if running.count is None else running.count.data), running.momentum
