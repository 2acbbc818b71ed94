"""Batch norm with SE in training, as two passes forward and two backward.

A batch norm followed by SE is one affine map for each sample and channel. With y the map, p a pivot, and over space

    m = mean of y - p,   q = mean of (y - p)^2,   mu = mean of m over samples,   var = mean of q over samples - mu^2,
    a = weight / sqrt(var + eps),   z = (m - mu) a + bias,   s = excite(z)

the output is (y - p) s a + s (bias - a mu). The squeeze z comes from the statistics that batch norm computes anyway,
and the recalibrated map takes the place of the normalised one, so that nothing else is written or saved. What is
between the passes, (N, C) in size, is ordinary autograd. The pivot changes nothing but the rounding: sums of a channel
whose mean is large against its spread would lose their digits.
"""

from typing import Any

import torch
from torch import Tensor

from senet.block import SqueezeExcitation
from senet.fusion import formulas
from senet.fusion.passes import enabled, is_channels_last, run, worthwhile

__all__ = ["HOOKS", "can_fuse", "is_plain", "normalise"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Statistics(torch.autograd.Function):
    """y -> y itself, its statistics, and a token: the way back brings `_Affine`'s gradient and factors here.

    Their "gradients" are a convention between the two: that of y is the gradient of `_Affine`'s output, and that of
    the token its factors a. Both have that one consumer. So the gradient of y is made in one pass.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        m, q = run("statistics", y, p)
        ctx.save_for_backward(y, p)
        return y, m, q, torch.empty_like(m)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        g, dm, dq, a = gradients
        y, p = ctx.saved_tensors
        pixels = y[0, 0].numel()
        return run("gradient", _like(g, y), y, p, a, 2 * dq / pixels, dm / pixels), None


class _Affine(torch.autograd.Function):
    """(y - p) a + b; and relu((y - p) a + b + skip) where there is a skip. `alias` and `token` are `_Statistics`'."""

    @staticmethod
    def forward(
        ctx: Any, alias: Tensor, y: Tensor, token: Tensor, p: Tensor, a: Tensor, b: Tensor, skip: Tensor | None
    ) -> Tensor:
        if skip is None:
            ctx.save_for_backward(y, p, a)
            return run("apply", y, p, a, b)  # type: ignore[no-any-return]
        x: Tensor = run("apply_relu", y, p, a, b, _like(skip, y))
        ctx.save_for_backward(y, p, a, x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, p, a, *x = ctx.saved_tensors
        g = _like(gradients[0], y)
        if x:
            g, da, db = run("reduce_relu", g, x[0], y, p)
        else:
            da, db = run("reduce", g, y, p)
        return g, None, a, None, da, db, (g if x else None)


def _like(x: Tensor, y: Tensor) -> Tensor:
    """A map in the memory format of another, so that a pass goes through both in one order."""
    if x.stride() == y.stride():
        return x
    if y.is_contiguous():
        return x.contiguous()
    return torch.empty_like(y, dtype=x.dtype).copy_(x) if not torch.is_grad_enabled() else x


def can_fuse(y: Tensor, se: SqueezeExcitation) -> bool:
    """Whether `normalise` computes what a batch norm and an SE block would, for whoever looks at it.

    Not where SE squeezes nothing, or somebody hooks into the block as a whole or changed what it does; nor for
    transforms of `torch.func`, which see through no pass.
    """
    if not worthwhile(y) or y.ndim < 3 or not y.is_floating_point() or y.device.type not in ("cpu", "cuda"):
        return False
    return not torch._C._are_functorch_transforms_active() and is_plain(se)


def is_plain(se: SqueezeExcitation) -> bool:
    """Whether a block squeezes, computes what `SqueezeExcitation` does, and nobody hooks into it as a whole."""
    plain = type(se).forward is SqueezeExcitation.forward and type(se).excite is SqueezeExcitation.excite
    return plain and se.squeeze != "none" and not any(getattr(se, hooks) for hooks in HOOKS)


def normalise(
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: tuple[Tensor, Tensor] | None,
    momentum: float,
    eps: float,
    se: SqueezeExcitation | None,
    skip: Tensor | None = None,
    group: Any = None,
) -> Tensor:
    """Batch norm by the statistics of the batch, then SE, then the sum with a skip and ReLU.

    Args:
        y: (N, C, *spatial).
        weight, bias: (C,), of the batch norm, or None.
        running: (C,) mean and variance, changed in place, or None.
        momentum: share of this batch in these.
        eps: added to the variance.
        se: the block, or None for batch norm alone.
        skip: (N, C, *spatial), added before a ReLU; None leaves both out.
        group: of `torch.distributed`, whose samples have their statistics in common; None is this process alone.

    Returns:
        (N, C, *spatial).

    Raises:
        ValueError: one value for each channel alone.
    """
    values = len(y) * y[0, 0].numel()
    if values == 1 and group is None:
        raise ValueError(f"expected more than 1 value per channel when training, got input size {tuple(y.shape)}")
    # Where PyTorch compiles the whole network it fuses the formulas by itself.
    as_formulas = torch.compiler.is_compiling() or not enabled()
    y = y if as_formulas else _dense(y)
    p = _pivot(y, group)
    if as_formulas:
        m, q = formulas.statistics(y, p)
        alias, token = y, m
    else:
        alias, m, q, token = _Statistics.apply(y, p)
    if group is None:
        mu, square = m.mean(0), q.mean(0)
    else:
        mu, square, values = _everywhere(m, q, values, group)
    var = (square - mu * mu).clamp(min=0)
    a = torch.rsqrt(var + eps)
    if weight is not None:
        a = a * weight.to(a.dtype)
    shift = torch.zeros_like(a) if bias is None else bias.to(a.dtype)
    if se is None:
        a_all, b_all = a[None], (shift - a * mu)[None]
    else:
        z = ((m if se.squeeze == "avg" else _extreme(y, p, m, weight)) - mu) * a + shift
        s = se.excite(z.to(y.dtype)).to(a.dtype)
        a_all = s * a
        b_all = s * shift - a_all * mu
    if running is not None:
        _track(running, momentum, (p[0] + mu).detach(), (var * (values / (values - 1))).detach())
    if as_formulas:
        x = formulas.apply(y, p, a_all, b_all)
        return x if skip is None else (x + skip).relu()
    a_all = a_all.expand_as(m)
    b_all = b_all.expand_as(m)
    fused: Tensor = _Affine.apply(alias, y, token, p, a_all, b_all, skip)
    return fused


def _dense(y: Tensor) -> Tensor:
    """A map without gaps: the passes go through memory as it lies."""
    return y if is_channels_last(y) else y.contiguous()


@torch.no_grad()
def _pivot(y: Tensor, group: Any) -> Tensor:
    """(1, C): the mean over samples of the pixel in the middle; the first process's."""
    middle: Any = (slice(None), slice(None), *[size // 2 for size in y.shape[2:]])
    pixel = y[middle]
    p = pixel.to(formulas.wide(y.dtype)).mean(0, keepdim=True)
    if group is not None:
        torch.distributed.broadcast(p, group=group, group_src=0)
    return p


def _everywhere(m: Tensor, q: Tensor, values: int, group: Any) -> tuple[Tensor, Tensor, int]:
    """(C,) means of y - p and of its square over all processes, and the number of values of a channel."""
    from torch.distributed.nn.functional import all_reduce  # whose way back adds up the gradients of all processes

    share = values / len(m)
    sums = torch.cat((m.sum(0) * share, q.sum(0) * share, m.new_full((1,), values)))
    mean, square, count = all_reduce(sums, group=group).split((m.shape[1], m.shape[1], 1))  # type: ignore[no-untyped-call]
    whole = int(count)
    if whole == 1:
        raise ValueError("expected more than 1 value per channel when training, over all processes")
    return mean / whole, square / whole, whole


def _extreme(y: Tensor, p: Tensor, m: Tensor, weight: Tensor | None) -> Tensor:
    """(N, C): what of y - p batch norm makes the maximum of: the largest, for a negative weight the smallest.

    A weight of zero makes all equal, and each has its share of the maximum: their mean.
    """
    space = list(range(2, y.ndim))
    largest = y.amax(space).to(p.dtype) - p
    if weight is None:
        return largest
    smallest = y.amin(space).to(p.dtype) - p
    return torch.where(weight > 0, largest, torch.where(weight < 0, smallest, m))


@torch.no_grad()
def _track(running: tuple[Tensor, Tensor], momentum: float, mean: Tensor, var: Tensor) -> None:
    for buffer, value in zip(running, (mean, var), strict=True):
        buffer.lerp_(value.to(buffer.dtype), momentum)
