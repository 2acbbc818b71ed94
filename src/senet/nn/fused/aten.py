"""The passes of `formulas` by PyTorch's own kernels, for where there is no compiler.

Batch norm's kernels take their sums over samples and space; here they are given one sample at a time.
"""

from functools import partial

import torch
from torch import Tensor

from senet.nn.fused import reference as formulas
from senet.nn.fused.reference import beside

__all__ = ["affine", "gradient", "moments", "reduce", "scale", "spread", "squeeze", "sums"]


def _wide(x: Tensor, n: int, p: Tensor) -> Tensor:
    """One sample of a map, in p's dtype: on a CPU the kernels take sums of half precision in half precision."""
    return x[n : n + 1].to(p.dtype)


def moments(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """See `formulas.moments`."""
    found = [torch.batch_norm_update_stats(_wide(y, n, p), None, None, 0.0) for n in range(len(y))]
    mean, var = (torch.stack(values).to(p.dtype) for values in zip(*found, strict=True))
    m = mean - p
    return m, var + m * m


def affine(y: Tensor, p: Tensor, a: Tensor, b: Tensor, skip: Tensor | None = None) -> Tensor:
    """See `formulas.affine`."""
    x = torch.addcmul(beside(b - p * a, y), y, beside(a, y)).to(y.dtype)
    return x if skip is None else x.add_(skip).relu_()


def sums(g: Tensor, y: Tensor, p: Tensor, x: Tensor | None = None) -> tuple[Tensor, ...]:
    """See `formulas.sums`."""
    before = () if x is None else (torch.ops.aten.threshold_backward(g, x, 0),)
    g = (*before, g)[0]
    one = torch.ones_like(p)
    backward = torch.ops.aten.native_batch_norm_backward
    found = [
        backward(_wide(g, n, p), _wide(y, n, p), one, None, None, p, one, True, 0.0, [False, True, True])[1:]
        for n in range(len(y))
    ]
    products, total = (torch.stack(values) for values in zip(*found, strict=True))
    return products, total, *before


def spread(g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """See `formulas.spread`."""
    x = torch.addcmul(beside(d - k * p, y), y, beside(k, y))
    return x.addcmul_(g.to(x.dtype), beside(a, y)).to(y.dtype)


squeeze = partial(formulas.squeeze, moments=moments)
scale = partial(formulas.scale, affine=affine)
reduce = partial(formulas.reduce, sums=sums)
gradient = partial(formulas.gradient, spread=spread)
