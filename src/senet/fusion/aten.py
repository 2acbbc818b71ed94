"""The passes of `formulas` by PyTorch's own kernels, for where there is no compiler.

Batch norm's kernels take their sums over samples and space; here they are given one sample at a time.
"""

import torch
from torch import Tensor

from senet.fusion.formulas import beside

__all__ = ["apply", "apply_relu", "gradient", "reduce", "reduce_relu", "statistics"]


def _wide(x: Tensor, n: int, p: Tensor) -> Tensor:
    """One sample of a map, in p's dtype: on a CPU the kernels take sums of half precision in half precision."""
    return x[n : n + 1].to(p.dtype)


def statistics(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """See `formulas.statistics`."""
    found = [torch.batch_norm_update_stats(_wide(y, n, p), None, None, 0.0) for n in range(len(y))]
    mean, var = (torch.stack(values).to(p.dtype) for values in zip(*found, strict=True))
    m = mean - p
    return m, var + m * m


def apply(y: Tensor, p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """See `formulas.apply`."""
    return torch.addcmul(beside(b - p * a, y), y, beside(a, y)).to(y.dtype)


def apply_relu(y: Tensor, p: Tensor, a: Tensor, b: Tensor, skip: Tensor) -> Tensor:
    """See `formulas.apply_relu`."""
    return apply(y, p, a, b).add_(skip).relu_()


def reduce(g: Tensor, y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """See `formulas.reduce`."""
    one = torch.ones_like(p[0])
    backward = torch.ops.aten.native_batch_norm_backward
    found = [
        backward(_wide(g, n, p), _wide(y, n, p), one, None, None, p[0], one, True, 0.0, [False, True, True])[1:]
        for n in range(len(y))
    ]
    products, sums = (torch.stack(values) for values in zip(*found, strict=True))
    return products, sums


def reduce_relu(g: Tensor, x: Tensor, y: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See `formulas.reduce_relu`."""
    h = torch.ops.aten.threshold_backward(g, x, 0)
    return (h, *reduce(h, y, p))


def gradient(g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """See `formulas.gradient`."""
    x = torch.addcmul(beside(d - k * p, y), y, beside(k, y))
    return x.addcmul_(g.to(x.dtype), beside(a, y)).to(y.dtype)
