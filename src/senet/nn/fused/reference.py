"""Batch norm with SE as passes over feature maps, written as formulas.

A map y has the shape (N, C, *spatial), whatever its rank; L is its pixels, p (C,) a pivot near the mean of a channel.
What stands beside a map has one value for each sample and channel, (N, C), or for each channel, (C,). Everything is
computed in float32, or in float64 for maps of float64, and only maps are rounded to the dtype of y.

The first four are all that reads or writes a map. The last four are these together with what belongs to them of (N, C)
and (C,): for small maps the calls, not the arithmetic, are the cost. `scale` and `gradient` give
the factors of the map that they write as well: Inductor computes an output once, and else for each pixel anew, which
took up to a third longer.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from senet.nn.fused.operands import Excitation

__all__ = [
    "adjoint",
    "affine",
    "beside",
    "excite",
    "factors",
    "gradient",
    "moments",
    "pivot",
    "recalibrate",
    "reduce",
    "scale",
    "settle",
    "spread",
    "squeeze",
    "sums",
    "wide",
]


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of everything but maps."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def beside(value: Tensor, y: Tensor) -> Tensor:
    """(N, C) or (C,), to stand beside a map: with an axis of length 1 for each spatial one."""
    return value.reshape(*value.shape, *[1] * (y.ndim - 2))


def _centred(y: Tensor, p: Tensor) -> Tensor:
    return y.to(p.dtype) - beside(p, y)


def _sum(x: Tensor) -> Tensor:
    """Sums over space, one axis after the other: in memory with the channels last, a row stays in the cache."""
    while x.ndim > 2:
        x = x.sum(-1)
    return x


def pivot(y: Tensor) -> Tensor:
    """(C,): the mean over samples and the row in the middle, which no pixel can move far from the rest.

    The result does not depend on it, but for rounding.
    """
    for axis in range(y.ndim - 2, 1, -1):
        y = y.select(axis, y.shape[axis] // 2)
    return y.detach().to(wide(y.dtype)).mean((0, 2))


def moments(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Means over space of y - p and of its square: (N, C), (N, C)."""
    d, pixels = _centred(y, p), y[0, 0].numel()
    return _sum(d) / pixels, _sum(d * d) / pixels


def affine(y: Tensor, p: Tensor, a: Tensor, b: Tensor, skip: Tensor | None = None) -> Tensor:
    """The map (y - p) a + b; with a skip, relu of it plus the skip: it is rounded as a map first, as by itself."""
    x = (_centred(y, p) * beside(a, y) + beside(b, y)).to(y.dtype)
    return x if skip is None else (x + skip).relu()


def sums(g: Tensor, y: Tensor, p: Tensor, x: Tensor | None = None) -> tuple[Tensor, ...]:
    """(N, C) sums over space of g (y - p) and of g; where x is a ReLU's output, of the g before it, a map, and that."""
    before = () if x is None else (torch.where(x <= 0, 0, g),)
    h = (*before, g)[0].to(p.dtype)
    return _sum(h * _centred(y, p)), _sum(h), *before


def spread(g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """The map a g + k (y - p) + d."""
    x = beside(a, y) * g.to(p.dtype) + _centred(y, p) * beside(k, y) + beside(d, y)
    return x.to(y.dtype)


def settle(
    m: Tensor, mean: Tensor, square: Tensor, values: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Batch norm's part of (N, C): the squeeze z of the normalised map, its factor a, 1 / spread, and the variance.

    Args:
        m: (N, C) means of y - p over space.
        mean, square: (C,) means of y - p and of its square over samples and space.
        values: how many these are means of.
        weight, bias, eps: batch norm's, (C,).

    Returns:
        z: (N, C).
        a: (C,), weight / spread.
        r: (C,), 1 / spread.
        var: (C,), unbiased, for the running one.
    """
    var = (square - mean * mean).clamp(min=0)
    r = torch.rsqrt(var + eps)
    a = r * weight.to(r.dtype)
    return (m - mean) * a + bias.to(a.dtype), a, r, var * (values / (values - 1))


def factors(s: Tensor, a: Tensor, mean: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) A and B, with which (y - p) A + B is the gate s times the normalised map."""
    s = s.to(a.dtype)
    return s * a, s * (bias.to(a.dtype) - a * mean)


def adjoint(
    dz: Tensor, da: Tensor, dmean: Tensor, m: Tensor, mean: Tensor, a: Tensor, r: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The reverse of `settle`: (C,) gradients of mean (that of m through z left aside), square, weight and bias."""
    dz = dz.to(a.dtype)
    dbias = dz.sum(0)
    da = da + (dz * (m - mean)).sum(0)
    dsquare = -0.5 * r * r * a * da
    return dmean - a * dbias - 2 * mean * dsquare, dsquare, da * r, dbias


def squeeze(
    y: Tensor, weight: Tensor, bias: Tensor, eps: float, moments: Callable[..., tuple[Tensor, Tensor]] = moments
) -> tuple[Tensor, ...]:
    """The way forward up to the excitation, in one reading: p, m, mean, z, a, r and var, see `settle`; z as y is."""
    p = pivot(y)
    m, q = moments(y, p)
    mean = m.mean(0)
    z, a, r, var = settle(m, mean, q.mean(0), y.numel() // y.shape[1], weight, bias, eps)
    return p, m, mean, z.to(y.dtype), a, r, var


def scale(
    y: Tensor,
    s: Tensor,
    p: Tensor,
    mean: Tensor,
    a: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    affine: Callable[..., Tensor] = affine,
) -> tuple[Tensor, ...]:
    """The way forward behind the excitation, in one writing: the map, and A and B, see `factors` and `affine`."""
    by, plus = factors(s, a, mean, bias)
    return affine(y, p, by, plus, skip), by, plus


def reduce(
    g: Tensor,
    y: Tensor,
    s: Tensor,
    p: Tensor,
    mean: Tensor,
    a: Tensor,
    bias: Tensor,
    x: Tensor | None = None,
    sums: Callable[..., tuple[Tensor, ...]] = sums,
) -> tuple[Tensor, ...]:
    """The way back to the excitation, in one reading: A, gradients of s, mean, a and bias, and g before a ReLU."""
    products, total, *before = sums(g, y, p, x)
    products = products - mean * total
    s = s.to(a.dtype)
    dbias = (s * total).sum(0)
    ds = a * products + bias.to(a.dtype) * total
    return s * a, ds, -a * dbias, (s * products).sum(0), dbias, *before


def gradient(
    g: Tensor,
    y: Tensor,
    p: Tensor,
    by: Tensor,
    dz: Tensor,
    da: Tensor,
    dmean: Tensor,
    m: Tensor,
    mean: Tensor,
    a: Tensor,
    r: Tensor,
    spread: Callable[..., Tensor] = spread,
) -> tuple[Tensor, ...]:
    """The way back from the excitation, in one writing: gradients of y, weight and bias, and what `spread` took."""
    samples, pixels = len(y), y[0, 0].numel()
    dmean, dsquare, dweight, dbias = adjoint(dz, da, dmean, m, mean, a, r)
    k, d = dsquare * (2 / (samples * pixels)), (dz.to(a.dtype) * a + dmean / samples) / pixels
    return spread(g, y, p, by, k, d), dweight, dbias, k, d


_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "silu": F.silu}


def excite(z: Tensor, se: Excitation) -> Tensor:
    """The gates (N, C) of a squeeze z (N, C), in z's dtype."""
    w1, b1, w2, b2 = (None if x is None else x.to(z.dtype) for x in se[:4])
    hidden = _ACTIVATIONS[se.activation](F.linear(z, w1, b1))  # type: ignore[arg-type]
    return _GATES[se.gate](F.linear(hidden, w2, b2)) * se.gain  # type: ignore[arg-type]


def recalibrate(y: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, se: Excitation | None) -> Tensor:
    """The map se(bn(y)), or bn(y) without SE: the whole operation before sum and ReLU, for ordinary autograd."""
    p = pivot(y)
    weight = p.new_ones(y.shape[1]) if weight is None else weight
    bias = p.new_zeros(y.shape[1]) if bias is None else bias
    m, q = moments(y, p)
    mean = m.mean(0)
    z, a, *_ = settle(m, mean, q.mean(0), y.numel() // y.shape[1], weight, bias, eps)
    return affine(y, p, *factors(torch.ones_like(z) if se is None else excite(z, se), a, mean, bias))
