"""Batch norm with SE in training: two passes forward and two backward, around the excitation.

A batch norm followed by SE is one affine map for each sample and channel. With y the map, p a pivot, and over space

    m = mean of y - p,   q = mean of (y - p)^2,   mu = mean of m over samples,   var = mean of q over samples - mu^2,
    a = weight / sqrt(var + eps),   z = (m - mu) a + bias,   s = excite(z)

the output is (y - p) s a + s (bias - a mu). The squeeze z comes from the statistics that batch norm computes anyway,
and the recalibrated map takes the place of the normalized one, so that nothing else is written or saved. The excitation
is ordinary autograd. The pivot changes nothing but the rounding: sums of a channel whose mean is large against its
spread would lose their digits.
"""

from typing import Any

import torch
from torch import Tensor

from senet.nn.block import SqueezeExcitation
from senet.nn.fused import dispatch, reference
from senet.nn.fused.backends import accepts, enabled, fused_choice, worthwhile
from senet.nn.fused.block_inspection import excitation, squeezes_whole
from senet.nn.fused.interface import Running
from senet.nn.fused.memory_format import convert, dense
from senet.utils.modes import is_traced

__all__ = ["can_fuse", "count_batch", "is_fusible_map", "like", "normalize", "reduce_over_group", "track"]


class _Squeeze(torch.autograd.Function):
    """Return y itself, its squeeze z, its mean and batch norm's factor a; and p and var, without gradients.

    "Gradients" that come back are a convention between this and `_Scale`: that of y is the gradient of `_Scale`'s
    output, and that of the token its factors A. Both have that one consumer. So the gradient of y is made in one pass.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Any) -> tuple[Tensor, ...]:
        p, m, mean, z, a, r, var, values = _squeeze(y, weight, bias, eps, group)
        ctx.save_for_backward(y, weight, bias, p, m, mean, a, r)
        ctx.eps, ctx.group, ctx.values = eps, group, values
        token = torch.empty_like(m)
        ctx.mark_non_differentiable(p, var)
        return y, z, mean, a, token, p, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g, dz, dmean, da, by = gradients[:5]
        y, weight, bias, p, m, mean, a, r = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of gradients are wanted: as autograd has it
            found = _squeeze(y, weight, bias, ctx.eps, ctx.group)
            pairs = zip((found[3], found[2], found[4]), (dz, dmean, da), strict=True)
            outputs, coming = zip(*[pair for pair in pairs if pair[0].requires_grad], strict=True)
            inputs = [x for x in (y, weight, bias) if x.requires_grad]
            computed = iter(torch.autograd.grad(outputs, inputs, coming, create_graph=True, allow_unused=True))
            dy, dweight, dbias = (next(computed) if x.requires_grad else None for x in (y, weight, bias))
            return (None if dy is None else dy + reference.unsqueeze_spatial(by, y) * g), dweight, dbias, None, None
        g = like(g, y)
        if ctx.group is None:
            dy, dweight, dbias, *_ = dispatch.gradient(g, y, p, by, dz, da, dmean, m, mean, a, r)
            return dy, dweight, dbias, None, None
        dmean, dsquare, dweight, dbias = reference.gather_stats_backward(dz, da, dmean, m, mean, a, r)
        sums = torch.cat((dmean, dsquare))
        torch.distributed.all_reduce(sums, group=ctx.group)
        dmean, dsquare = (sums / ctx.values).chunk(2)
        d = dz * a / y[0, 0].numel() + dmean
        return dispatch.backward_elemt(g, y, p, by, 2 * dsquare, d), dweight, dbias, None, None


class _Scale(torch.autograd.Function):
    """s times the normalized y; and relu(that + skip) where there is a skip. `alias` and `token` are `_Squeeze`'s."""

    @staticmethod
    def forward(
        ctx: Any,
        alias: Tensor,
        y: Tensor,
        token: Tensor,
        s: Tensor,
        p: Tensor,
        mean: Tensor,
        a: Tensor,
        bias: Tensor,
        skip: Tensor | None,
    ) -> Tensor:
        s = s.contiguous()
        more = () if skip is None else (like(skip, y),)
        x: Tensor = dispatch.scale(y, s, p, mean, a, bias, *more)[0]
        ctx.save_for_backward(y, s, p, mean, a, bias, *([x] if more else []))
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, *rest = ctx.saved_tensors
        g = like(gradients[0], y)
        by, ds, dmean, da, dbias, *before = dispatch.reduce(g, y, *rest)
        skip = before[0] if before else None
        return (g if skip is None else skip), None, by, ds, None, dmean, da, dbias, skip


def like(x: Tensor, y: Tensor) -> Tensor:
    """Convert x to the memory format of y, unless every operation is observed: formulas take any memory format."""
    return x if dispatch.is_followed(x) else convert(x, y)


def _squeeze(y: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Any) -> tuple[Any, ...]:
    """Compute `reference.squeeze` over all processes of a group; also return the number of values per channel."""
    values = y.numel() // y.shape[1]
    if group is None:
        return (*dispatch.squeeze(y, weight, bias, eps), values)
    p = reference.pivot(y).nan_to_num()  # of the first process, which may have no samples
    torch.distributed.broadcast(p, group=group, group_src=0)
    m, q = dispatch.stats(y, p)
    mean, square, values = reduce_over_group(m, q, values, group)
    z, a, r, var = reference.gather_stats(m, mean, square, values, weight, bias, eps)
    return p, m, mean, z.to(y.dtype), a, r, var, values


def can_fuse(y: Tensor, se: SqueezeExcitation) -> bool:
    """Return whether `normalize` computes what a batch norm and an SE block would, also for observers.

    Not if SE squeezes nothing or windows, or the block has hooks or a modified forward; nor under transforms of
    `torch.func`, forward-mode derivatives and `torch.jit.trace`, which cannot process fused passes.
    """
    return is_fusible_map(y) and worthwhile(y) and squeezes_whole(se, y)


def is_fusible_map(y: Tensor) -> bool:
    """Return whether passes take a map (N, C, *spatial), and nothing is active that cannot process them.

    Looks at sizes only where no trace records them.
    """
    if is_traced() or not y.numel() or y.ndim < 3 or not y.is_floating_point() or y.device.type not in ("cpu", "cuda"):
        return False
    return not torch._C._are_functorch_transforms_active() and torch.autograd.forward_ad._current_level < 0


def normalize(
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    eps: float,
    se: SqueezeExcitation | None,
    skip: Tensor | None = None,
    group: Any = None,
) -> Tensor:
    """Batch norm by the statistics of the batch, then SE, then the sum with a skip and ReLU.

    This is the general path: passes around the excitation, which uses ordinary autograd. `autograd.py` is the other.

    Args:
        y: (N, C, *spatial).
        weight, bias: (C,), of the batch norm, or None.
        running: changed in place, the count of batches too; or None.
        eps: added to the variance.
        se: the block, or None for batch norm alone.
        skip: (N, C, *spatial), added before a ReLU; None leaves both out.
        group: of `torch.distributed`, whose samples have their statistics in common; None is this process alone.

    Returns:
        (N, C, *spatial).

    Raises:
        ValueError: one value for each channel alone.
    """
    if y.numel() == y.shape[1] and group is None:
        raise ValueError(f"expected more than 1 value per channel when training, got input size {tuple(y.shape)}")
    momentum = None if running is None else count_batch(running)
    block = excitation(se) if se is not None and group is None and _is_operator(y) else None
    if block is not None and accepts(y.device, y.shape[1], block.w1.shape[0]):
        numbers = (float(eps), *block[4:])
        out, _, mean, var = torch.ops.senet.normalize(y, weight, bias, *block[:4], skip, *numbers)
        if running is not None and momentum is not None:
            track(running, momentum, mean, var)
        return out  # type: ignore[no-any-return]
    weight = y.new_ones(y.shape[1]) if weight is None else weight
    bias = torch.zeros_like(weight) if bias is None else bias
    # A compiler of the whole network fuses the formulas itself.
    as_formulas = torch.compiler.is_compiling() or not enabled()
    if as_formulas:
        p, _, mean, z, a, _, var, _ = _squeeze(y, weight, bias, eps, group)
        alias = token = y
    else:
        y = dense(y)
        alias, z, mean, a, token, p, var = _Squeeze.apply(y, weight, bias, float(eps), group)
    if se is not None and se.squeeze == "max":
        z = _largest(y, p, mean, a, bias)
    s = torch.ones_like(z) if se is None else se.excite(z)
    if running is not None and momentum is not None:
        track(running, momentum, p + mean, var)
    if as_formulas:
        return reference.scale(y, s, p, mean, a, bias, skip)[0]
    fused: Tensor = _Scale.apply(alias, y, token, s, p, mean, a, bias, skip)
    return fused


def _is_operator(y: Tensor) -> bool:
    """Return whether a compiled network calls the kernels: if they were chosen by name, see `custom_ops`."""
    narrow = y.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return torch.compiler.is_compiling() and fused_choice() == "triton" and narrow


def reduce_over_group(m: Tensor, q: Tensor, values: int, group: Any) -> tuple[Tensor, Tensor, int]:
    """Return (C,) means of y - p and its square over all processes, and the number of values per channel."""
    from torch.distributed.nn.functional import all_reduce  # whose backward sums the gradients of all processes

    share = values / max(1, len(m))
    sums = torch.cat((m.sum(0) * share, q.sum(0) * share, m.new_full((1,), values)))
    mean, square, count = all_reduce(sums, group=group).split((m.shape[1], m.shape[1], 1))  # type: ignore[no-untyped-call]
    whole = int(count)
    if whole == 1:
        raise ValueError("expected more than 1 value per channel when training, over all processes")
    return mean / whole, square / whole, whole


def _largest(y: Tensor, p: Tensor, mean: Tensor, a: Tensor, bias: Tensor) -> Tensor:
    """Return the maximum over space of the normalized map, (N, C), at the maximum or minimum of y.

    If a is 0, all values are equal, and gradients are shared equally: use their mean.
    """
    space = list(range(2, y.ndim))
    wide = y.to(p.dtype)
    extreme = torch.where(a > 0, y.amax(space), torch.where(a < 0, y.amin(space), wide.mean(space)))
    return ((extreme - p - mean) * a + bias.to(a.dtype)).to(y.dtype)


def count_batch(running: Running) -> float | Tensor:
    """Count a batch, and return its share in running statistics: on a GPU a tensor where that is the count's."""
    if running.count is None:
        return running.momentum or 0.0
    running.count.add_(1)
    if running.momentum is not None:
        return running.momentum
    return 1.0 / float(running.count) if running.count.device.type == "cpu" else running.count.reciprocal()


@torch.no_grad()
def track(running: Running, momentum: float | Tensor, mean: Tensor, var: Tensor) -> None:
    """Update running statistics by the batch's share, mean and unbiased variance."""
    for buffer, value in zip(running[:2], (mean, var), strict=True):
        share = momentum.to(buffer.dtype) if isinstance(momentum, Tensor) else momentum
        buffer.lerp_(value.to(buffer.dtype), share)
