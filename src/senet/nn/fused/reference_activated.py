"""Batch norm, activation and SE as passes over feature maps, in plain PyTorch operations.

With the notation of `reference`: v = (y - p) a + b is the normalized map, with a = weight / sqrt(var + eps) and
b = bias - a mean, both (C,); u = act(v); z the mean of u over space, and s (N, C) the gates. The output is s u. With
f = act'(v), L the pixels of a sample and e = dz / L, the gradient of v is f (s g + e).

`activated_mean`, `activated_scale`, `activated_sums` and `activated_elemt` are the four functions that read or write
maps. `activated_squeeze`, `activated_reduce` and `activated_gradient` have the arithmetic of (N, C) and (C,) values
around them. `activated_gradient` also returns the factors of its map, see `reference`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from senet.nn.fused import reference
from senet.nn.fused.interface import MapActivation
from senet.nn.fused.reference import unsqueeze_spatial

__all__ = [
    "activated_elemt",
    "activated_gather",
    "activated_gather_backward",
    "activated_gradient",
    "activated_mean",
    "activated_reduce",
    "activated_scale",
    "activated_squeeze",
    "activated_sums",
    "activation_gradient",
]

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hard_swish": F.hardswish,
}


def _normalized(y: Tensor, p: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return y - p and the normalized map."""
    d = y.to(p.dtype) - unsqueeze_spatial(p, y)
    return d, d * unsqueeze_spatial(a, y) + unsqueeze_spatial(b, y)


def _activate(v: Tensor, activation: MapActivation) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return act(v), act'(v), and where v passes no gradient, not even NaN; None if that is nowhere."""
    if activation == "silu":
        t = torch.sigmoid(v)
        u = v * t
        return u, t + u * (1 - t), None
    u = _FUNCTIONS[activation](v)
    if activation == "hard_swish":
        off = v <= -3
        return u, torch.where(off, 0.0, torch.where(v < 3, v / 3 + 0.5, 1.0)), off
    off = v <= 0 if activation == "relu" else (v <= 0) | (v >= 6)
    return u, (~off).to(v.dtype), off


def _times(x: Tensor, f: Tensor, off: Tensor | None) -> Tensor:
    return f * x if off is None else torch.where(off, 0.0, f * x)


def activation_gradient(g: Tensor, v: Tensor, activation: MapActivation) -> Tensor:
    """Return g act'(v)."""
    _, f, off = _activate(v, activation)
    return _times(g, f, off)


def activated_mean(y: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation) -> Tensor:
    """Return the mean over space of the activated map, (N, C)."""
    return reference.sum_spatial(_FUNCTIONS[activation](_normalized(y, p, a, b)[1])) / y[0, 0].numel()


def activated_scale(y: Tensor, s: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation) -> Tensor:
    """Return the map s act((y - p) a + b)."""
    u = _FUNCTIONS[activation](_normalized(y, p, a, b)[1])
    return (u * unsqueeze_spatial(s.to(u.dtype), y)).to(y.dtype)


def activated_sums(
    g: Tensor, y: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation
) -> tuple[Tensor, ...]:
    """Return (N, C) sums over space of g u, f g, f g (y - p), f and f (y - p)."""
    d, v = _normalized(y, p, a, b)
    u, f, off = _activate(v, activation)
    g = g.to(p.dtype)
    h = _times(g, f, off)
    return tuple(reference.sum_spatial(x) for x in (g * u, h, h * d, f, f * d))


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
    """Return the map f (by g + plus) + k (y - p) + c, with by and plus (N, C), k and c (C,)."""
    d, v = _normalized(y, p, a, b)
    x = unsqueeze_spatial(by, y) * g.to(p.dtype) + unsqueeze_spatial(plus, y)
    x = activation_gradient(x, v, activation)
    return (x + unsqueeze_spatial(k, y) * d + unsqueeze_spatial(c, y)).to(y.dtype)


def _product(x: Tensor, total: Tensor) -> Tensor:
    """Return x total, where total is 0 even if x is not finite: the activation passes no gradient, not even NaN."""
    return torch.where(x.isfinite() | (total != 0), x, 0.0) * total


def activated_gather(
    mean: Tensor, square: Tensor, values: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a, b, 1 / sqrt(var + eps) and the unbiased variance, (C,), see `reference.gather_stats`."""
    _, a, r, var = reference.gather_stats(mean, mean, square, values, weight, bias, eps)
    return a, bias.to(a.dtype) - a * mean, r, var


def activated_gather_backward(
    s: Tensor,
    dz: Tensor,
    da: Tensor,
    db: Tensor,
    f0: Tensor,
    f1: Tensor,
    mean: Tensor,
    a: Tensor,
    r: Tensor,
    pixels: int,
) -> tuple[Tensor, ...]:
    """Return what is between the sums and the gradient.

    Args:
        s: (N, C), the gates.
        dz: (N, C), the gradient of the squeeze.
        da, db: (C,), gradients of a and b without their share through the squeeze.
        f0, f1: (N, C), sums over space of f and of f (y - p).
        mean, a, r: (C,), see `activated_squeeze`.
        pixels: of a sample.

    Returns:
        by, plus: (N, C), factors of `activated_elemt`.
        dmean, dsquare: (C,), gradients of the means of y - p and of its square.
        dweight, dbias: (C,).
    """
    e = dz.to(a.dtype) / pixels
    db = db + _product(e, f0).sum(0)
    da = da + _product(e, f1).sum(0) - mean * db
    dsquare = -0.5 * r * r * a * da
    return s.to(a.dtype) * a, e * a, -a * db - 2 * mean * dsquare, dsquare, da * r, db


def activated_squeeze(
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    activation: MapActivation,
    stats: Callable[..., tuple[Tensor, Tensor]] = reference.stats,
    mean_of: Callable[..., Tensor] = activated_mean,
) -> tuple[Tensor, ...]:
    """Compute forward up to the excitation, reading y twice: z (in y's dtype), p, mean, a, b, r and var."""
    p = reference.pivot(y)
    m, q = stats(y, p)
    mean = m.mean(0)
    a, b, r, var = activated_gather(mean, q.mean(0), y.numel() // y.shape[1], weight, bias, eps)
    return mean_of(y, p, a, b, activation).to(y.dtype), p, mean, a, b, r, var


def activated_reduce(
    g: Tensor,
    y: Tensor,
    s: Tensor,
    p: Tensor,
    a: Tensor,
    b: Tensor,
    activation: MapActivation,
    sums: Callable[..., tuple[Tensor, ...]] = activated_sums,
) -> tuple[Tensor, ...]:
    """Compute backward up to the excitation, reading g and y once: gradients of s, a and b, and sums of f, f (y - p).

    The gradients of a and b are without their share through the squeeze.
    """
    ds, h0, h1, f0, f1 = sums(g, y, p, a, b, activation)
    s = s.to(a.dtype)
    return ds, _product(s, h1).sum(0), _product(s, h0).sum(0), f0, f1


def activated_gradient(
    g: Tensor,
    y: Tensor,
    p: Tensor,
    a: Tensor,
    b: Tensor,
    s: Tensor,
    dz: Tensor,
    da: Tensor,
    db: Tensor,
    f0: Tensor,
    f1: Tensor,
    mean: Tensor,
    r: Tensor,
    activation: MapActivation,
    elemt: Callable[..., Tensor] = activated_elemt,
) -> tuple[Tensor, ...]:
    """Compute backward after the excitation, writing one map: gradients of y, weight and bias, and the factors."""
    samples, pixels = len(y), y[0, 0].numel()
    by, plus, dmean, dsquare, dweight, dbias = activated_gather_backward(s, dz, da, db, f0, f1, mean, a, r, pixels)
    k, c = dsquare * (2 / (samples * pixels)), dmean / (samples * pixels)
    return elemt(g, y, p, a, b, by, plus, k, c, activation), dweight, dbias, by, plus, k, c
