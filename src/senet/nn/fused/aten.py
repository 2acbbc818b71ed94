"""The passes of `reference` by PyTorch's own kernels, for where there is no compiler.

Batch norm's kernels take their sums over samples and space; here they are given one sample at a time. The passes with
an activation are the operations of `reference_activated`, one sample at a time: their temporary maps are small.
"""

from functools import partial

import torch
from torch import Tensor

from senet.nn.fused import reference, reference_activated
from senet.nn.fused.interface import MapActivation
from senet.nn.fused.reference import unsqueeze_spatial

__all__ = [
    "activated_elemt",
    "activated_gradient",
    "activated_mean",
    "activated_reduce",
    "activated_scale",
    "activated_squeeze",
    "backward_elemt",
    "backward_reduce",
    "elemt",
    "gradient",
    "reduce",
    "scale",
    "squeeze",
    "stats",
]


def _wide(x: Tensor, n: int, p: Tensor) -> Tensor:
    """Return one sample of a map, in p's dtype: on a CPU the kernels take sums of half precision in half precision."""
    return x[n : n + 1].to(p.dtype)


def stats(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """See `reference.stats`. The kernel rounds the mean, so the pivot is subtracted before."""
    shift = unsqueeze_spatial(p, y)
    found = [torch.batch_norm_update_stats(_wide(y, n, p) - shift, None, None, 0.0) for n in range(len(y))]
    m, var = (torch.stack(values).to(p.dtype) for values in zip(*found, strict=True))
    return m, var + m * m


def elemt(y: Tensor, p: Tensor, a: Tensor, b: Tensor, skip: Tensor | None = None) -> Tensor:
    """See `reference.elemt`."""
    x = torch.addcmul(unsqueeze_spatial(b - p * a, y), y, unsqueeze_spatial(a, y)).to(y.dtype)
    return x if skip is None else x.add_(skip).relu_()


def backward_reduce(g: Tensor, y: Tensor, p: Tensor, x: Tensor | None = None) -> tuple[Tensor, ...]:
    """See `reference.backward_reduce`."""
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


def backward_elemt(g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """See `reference.backward_elemt`."""
    x = torch.addcmul(unsqueeze_spatial(d - k * p, y), y, unsqueeze_spatial(k, y))
    return x.addcmul_(g.to(x.dtype), unsqueeze_spatial(a, y)).to(y.dtype)


squeeze = partial(reference.squeeze, stats=stats)
scale = partial(reference.scale, elemt=elemt)
reduce = partial(reference.reduce, backward_reduce=backward_reduce)
gradient = partial(reference.gradient, backward_elemt=backward_elemt)


def activated_mean(y: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation) -> Tensor:
    """See `reference_activated.activated_mean`."""
    return torch.cat([reference_activated.activated_mean(y[n : n + 1], p, a, b, activation) for n in range(len(y))])


def activated_scale(y: Tensor, s: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation) -> Tensor:
    """See `reference_activated.activated_scale`."""
    out = torch.empty_like(y)
    for n in range(len(y)):
        out[n] = reference_activated.activated_scale(y[n : n + 1], s[n : n + 1], p, a, b, activation)[0]
    return out


def activated_sums(
    g: Tensor, y: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation
) -> tuple[Tensor, ...]:
    """See `reference_activated.activated_sums`."""
    found = [reference_activated.activated_sums(g[n : n + 1], y[n : n + 1], p, a, b, activation) for n in range(len(y))]
    return tuple(torch.cat(values) for values in zip(*found, strict=True))


def activated_elemt(
    g: Tensor,
    y: Tensor,
    p: Tensor,
    a: Tensor,
    b: Tensor,
    by: Tensor,
    plus: Tensor,
    k: Tensor,
    c: Tensor,
    activation: MapActivation,
) -> Tensor:
    """See `reference_activated.activated_elemt`."""
    dy = torch.empty_like(y)
    for n in range(len(y)):
        one = slice(n, n + 1)
        dy[n] = reference_activated.activated_elemt(g[one], y[one], p, a, b, by[one], plus[one], k, c, activation)[0]
    return dy


activated_squeeze = partial(reference_activated.activated_squeeze, stats=stats, mean_of=activated_mean)
activated_reduce = partial(reference_activated.activated_reduce, sums=activated_sums)
activated_gradient = partial(reference_activated.activated_gradient, elemt=activated_elemt)
