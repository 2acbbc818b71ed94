"""Batch norm with SE as passes over feature maps, in plain PyTorch operations.

A map y has the shape (N, C, *spatial), whatever its rank; L is its pixels, p (C,) a pivot near the mean of a channel.
All other values have one number for each sample and channel, (N, C), or for each channel, (C,). Everything is computed
in float32, or in float64 for float64 maps; only maps are rounded to y's dtype.

`stats`, `elemt`, `backward_reduce` and `backward_elemt`, named after ATen's `batch_norm_*`, are the four functions that
read or write maps. `squeeze`, `scale`, `reduce` and `gradient` are the same four with the (N, C) and (C,) arithmetic
around them: on small maps the number of calls is the cost. `scale` and `gradient` also return the factors of the map
they write: Inductor computes an output once, but an intermediate again for each pixel, which took up to a third longer.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from senet.nn.fused.interface import Excitation

__all__ = [
    "backward_elemt",
    "backward_reduce",
    "elemt",
    "excite",
    "factors",
    "gather_stats",
    "gather_stats_backward",
    "gradient",
    "pivot",
    "recalibrate",
    "reduce",
    "scale",
    "squeeze",
    "stats",
    "sum_spatial",
    "unsqueeze_spatial",
    "wide",
]


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of everything except maps."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unsqueeze_spatial(value: Tensor, y: Tensor) -> Tensor:
    """Append an axis of length 1 to (N, C) or (C,) for each spatial axis of y, so that they broadcast."""
    return value.reshape(*value.shape, *[1] * (y.ndim - 2))


def _centred(y: Tensor, p: Tensor) -> Tensor:
    return y.to(p.dtype) - unsqueeze_spatial(p, y)


def sum_spatial(x: Tensor) -> Tensor:
    """Sum over space; unless memory is contiguous, axis by axis: in channels-last memory, a row stays in the cache."""
    if x.is_contiguous():
        return x.sum(list(range(2, x.ndim)))
    while x.ndim > 2:
        x = x.sum(-1)
    return x


def pivot(y: Tensor) -> Tensor:
    """Return the mean over samples and the middle row, (C,), which no single pixel moves far.

    Results do not depend on it, except for rounding.
    """
    for axis in range(y.ndim - 2, 1, -1):
        y = y.select(axis, y.shape[axis] // 2)
    return y.detach().to(wide(y.dtype)).mean((0, 2))


def stats(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Return means over space of y - p and of its square: (N, C), (N, C)."""
    d, pixels = _centred(y, p), y[0, 0].numel()
    return sum_spatial(d) / pixels, sum_spatial(d * d) / pixels


def elemt(y: Tensor, p: Tensor, a: Tensor, b: Tensor, skip: Tensor | None = None) -> Tensor:
    """Return the map (y - p) a + b; with a skip, relu(map + skip), the map rounded to its dtype before the sum."""
    x = (_centred(y, p) * unsqueeze_spatial(a, y) + unsqueeze_spatial(b, y)).to(y.dtype)
    return x if skip is None else (x + skip).relu()


def backward_reduce(g: Tensor, y: Tensor, p: Tensor, x: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return (N, C) sums over space of g (y - p) and of g; given a ReLU's output x, of g masked by it, and that map."""
    before = () if x is None else (torch.where(x <= 0, 0, g),)
    h = (*before, g)[0].to(p.dtype)
    return sum_spatial(h * _centred(y, p)), sum_spatial(h), *before


def backward_elemt(g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """Return the map a g + k (y - p) + d."""
    x = unsqueeze_spatial(a, y) * g.to(p.dtype) + _centred(y, p) * unsqueeze_spatial(k, y) + unsqueeze_spatial(d, y)
    return x.to(y.dtype)


def gather_stats(
    m: Tensor, mean: Tensor, square: Tensor, values: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return batch norm's factors, the squeeze of the normalized map, and the variance.

    Args:
        m: (N, C) means of y - p over space.
        mean, square: (C,) means of y - p and of its square over samples and space.
        values: number of values in each of these means.
        weight, bias, eps: batch norm's, (C,).

    Returns:
        z: (N, C), the squeeze.
        a: (C,), weight / sqrt(var + eps).
        r: (C,), 1 / sqrt(var + eps).
        var: (C,), unbiased, for the running variance.
    """
    var = (square - mean * mean).clamp(min=0)
    r = torch.rsqrt(var + eps)
    a = r * weight.to(r.dtype)
    return (m - mean) * a + bias.to(a.dtype), a, r, var * (values / (values - 1))


def factors(s: Tensor, a: Tensor, mean: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, C) factors A and B: (y - p) A + B is the gate s times the normalized map."""
    s = s.to(a.dtype)
    return s * a, s * (bias.to(a.dtype) - a * mean)


def gather_stats_backward(
    dz: Tensor, da: Tensor, dmean: Tensor, m: Tensor, mean: Tensor, a: Tensor, r: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (C,) gradients of `gather_stats`: of mean (without its share through m), square, weight and bias."""
    dz = dz.to(a.dtype)
    dbias = dz.sum(0)
    da = da + (dz * (m - mean)).sum(0)
    dsquare = -0.5 * r * r * a * da
    return dmean - a * dbias - 2 * mean * dsquare, dsquare, da * r, dbias


def squeeze(
    y: Tensor, weight: Tensor, bias: Tensor, eps: float, stats: Callable[..., tuple[Tensor, Tensor]] = stats
) -> tuple[Tensor, ...]:
    """Compute forward up to the excitation, reading y once: p, m, mean, z (in y's dtype), a, r and var."""
    p = pivot(y)
    m, q = stats(y, p)
    mean = m.mean(0)
    z, a, r, var = gather_stats(m, mean, q.mean(0), y.numel() // y.shape[1], weight, bias, eps)
    return p, m, mean, z.to(y.dtype), a, r, var


def scale(
    y: Tensor,
    s: Tensor,
    p: Tensor,
    mean: Tensor,
    a: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    elemt: Callable[..., Tensor] = elemt,
) -> tuple[Tensor, ...]:
    """Compute forward after the excitation, writing one map: the output, and A and B, see `factors`."""
    by, plus = factors(s, a, mean, bias)
    return elemt(y, p, by, plus, skip), by, plus


def reduce(
    g: Tensor,
    y: Tensor,
    s: Tensor,
    p: Tensor,
    mean: Tensor,
    a: Tensor,
    bias: Tensor,
    x: Tensor | None = None,
    backward_reduce: Callable[..., tuple[Tensor, ...]] = backward_reduce,
) -> tuple[Tensor, ...]:
    """Compute backward up to the excitation, reading g and y once: A, gradients of s, mean, a, bias, and masked g."""
    products, total, *before = backward_reduce(g, y, p, x)
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
    backward_elemt: Callable[..., Tensor] = backward_elemt,
) -> tuple[Tensor, ...]:
    """Compute backward after the excitation, writing one map: gradients of y, weight and bias, and k and d."""
    samples, pixels = len(y), y[0, 0].numel()
    dmean, dsquare, dweight, dbias = gather_stats_backward(dz, da, dmean, m, mean, a, r)
    k, d = dsquare * (2 / (samples * pixels)), (dz.to(a.dtype) * a + dmean / samples) / pixels
    return backward_elemt(g, y, p, by, k, d), dweight, dbias, k, d


_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "silu": F.silu}


def excite(z: Tensor, se: Excitation) -> Tensor:
    """Return the gates (N, C) of a squeeze z (N, C), in z's dtype."""
    w1, b1, w2, b2 = (None if x is None else x.to(z.dtype) for x in se[:4])
    hidden = _ACTIVATIONS[se.activation](F.linear(z, w1, b1))  # type: ignore[arg-type]
    return _GATES[se.gate](F.linear(hidden, w2, b2)) * se.gain  # type: ignore[arg-type]


def recalibrate(y: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, se: Excitation | None) -> Tensor:
    """Return se(bn(y)), or bn(y) without SE, differentiable by ordinary autograd."""
    p = pivot(y)
    weight = p.new_ones(y.shape[1]) if weight is None else weight
    bias = p.new_zeros(y.shape[1]) if bias is None else bias
    m, q = stats(y, p)
    mean = m.mean(0)
    z, a, *_ = gather_stats(m, mean, q.mean(0), y.numel() // y.shape[1], weight, bias, eps)
    return elemt(y, p, *factors(torch.ones_like(z) if se is None else excite(z, se), a, mean, bias))
