"""Batch norm, activation and SE in training, as passes that save only their input for backward.

Forward reads the map three times, for the statistics, the squeeze and the output; backward reads the map and the
incoming gradient twice. The normalized and the activated map are computed again where they are needed, and never
written. `reference_activated.py` has the equations. The excitation is ordinary autograd between two Functions, as in
`operations.py`.
"""

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from senet.nn.fused import backends, dispatch, reference_activated
from senet.nn.fused.backends import fused_by, fused_choice, worthwhile
from senet.nn.fused.interface import MapActivation, Running
from senet.nn.fused.memory_format import dense
from senet.nn.fused.operations import count_batch, is_fusible_map, like, reduce_over_group, track
from senet.nn.fused.reference import pivot, unsqueeze_spatial
from senet.utils.choices import check_choice

__all__ = ["can_fuse_activated", "normalize_activate"]

_ACTIVATIONS = frozenset(get_args(MapActivation))


class _Squeeze(torch.autograd.Function):
    """Return y itself, its squeeze z, batch norm's a and b, three tokens; and p, mean and var, without gradients.

    "Gradients" that come back are a convention between this and `_Scale`: that of y is the gradient of `_Scale`'s
    output, those of the tokens are the gates and the sums of f and f (y - p). All have that one consumer.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: MapActivation, group: Any
    ) -> tuple[Tensor, ...]:
        z, p, mean, a, b, r, var, values = _squeeze(y, weight, bias, eps, activation, group)
        ctx.save_for_backward(y, weight, bias, p, mean, a, b, r)
        ctx.call = eps, activation, group, values
        tokens = [torch.empty_like(z, dtype=a.dtype) for _ in range(3)]
        ctx.mark_non_differentiable(p, mean, var)
        return y, z, a, b, *tokens, p, mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g, dz, da, db, s, f0, f1 = gradients[:7]
        y, weight, bias, p, mean, a, b, r = ctx.saved_tensors
        _, activation, group, values = ctx.call
        if torch.is_grad_enabled():  # gradients of gradients are wanted: as autograd has it
            found = _differentiate(y, weight, bias, g, dz, da, db, s, *ctx.call[:3])
            return (*found, None, None, None)
        g = like(g, y)
        if group is None:
            arguments = (g, y, p, a, b, s, dz, da, db, f0, f1, mean, r, activation)
            dy, dweight, dbias, *_ = dispatch.activated_gradient(*arguments)
            return dy, dweight, dbias, None, None, None
        by, plus, dmean, dsquare, dweight, dbias = reference_activated.activated_gather_backward(
            s, dz, da, db, f0, f1, mean, a, r, y[0, 0].numel()
        )
        sums = torch.cat((dmean, dsquare))
        torch.distributed.all_reduce(sums, group=group)
        dmean, dsquare = (sums / values).chunk(2)
        dy = dispatch.activated_elemt(g, y, p, a, b, by, plus, 2 * dsquare, dmean.contiguous(), activation)
        return dy, dweight, dbias, None, None, None


class _Scale(torch.autograd.Function):
    """s times the activated, normalized y. `alias`, a, b and the tokens are `_Squeeze`'s."""

    @staticmethod
    def forward(
        ctx: Any,
        alias: Tensor,
        y: Tensor,
        s: Tensor,
        a: Tensor,
        b: Tensor,
        gates: Tensor,
        f0: Tensor,
        f1: Tensor,
        p: Tensor,
        activation: MapActivation,
    ) -> Tensor:
        s = s.contiguous()
        ctx.save_for_backward(y, s, p, a, b)
        ctx.activation = activation
        return dispatch.activated_scale(y, s, p, a, b, activation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, s, p, a, b = ctx.saved_tensors
        g = like(gradients[0], y)
        ds, da, db, f0, f1 = dispatch.activated_reduce(g, y, s, p, a, b, ctx.activation)
        return g, None, ds, da, db, s, f0, f1, None, None


def _squeeze(
    y: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: MapActivation, group: Any
) -> tuple[Any, ...]:
    """Compute `activated_squeeze` over all processes of a group; also return the number of values per channel."""
    values = y.numel() // y.shape[1]
    if group is None:
        return (*dispatch.activated_squeeze(y, weight, bias, eps, activation), values)
    p = pivot(y).nan_to_num()  # of the first process, which may have no samples
    torch.distributed.broadcast(p, group=group, group_src=0)
    m, q = dispatch.stats(y, p)
    mean, square, values = reduce_over_group(m, q, values, group)
    a, b, r, var = reference_activated.activated_gather(mean, square, values, weight, bias, eps)
    z = dispatch.activated_mean(y, p, a.contiguous(), b.contiguous(), activation)
    return z.to(y.dtype), p, mean, a, b, r, var, values


def _differentiate(
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    g: Tensor,
    dz: Tensor,
    da: Tensor,
    db: Tensor,
    s: Tensor,
    eps: float,
    activation: MapActivation,
    group: Any,
) -> tuple[Tensor | None, ...]:
    """Return `_Squeeze`'s gradients of y, weight and bias, with a graph."""
    z, p, _, a, b, *_ = _squeeze(y, weight, bias, eps, activation, group)
    pairs = [pair for pair in zip((z, a, b), (dz, da, db), strict=True) if pair[0].requires_grad]
    inputs = [x for x in (y, weight, bias) if x.requires_grad]
    outputs, coming = zip(*pairs, strict=True)
    computed = iter(torch.autograd.grad(outputs, inputs, coming, create_graph=True, allow_unused=True))
    dy, dweight, dbias = (next(computed) if x.requires_grad else None for x in (y, weight, bias))
    if dy is not None:
        v = (y.to(p.dtype) - unsqueeze_spatial(p, y)) * unsqueeze_spatial(a, y) + unsqueeze_spatial(b, y)
        h = unsqueeze_spatial(a * s, y) * g.to(p.dtype)
        dy = dy + reference_activated.activation_gradient(h, v, activation).to(dy.dtype)
    return dy, dweight, dbias


def can_fuse_activated(y: Tensor) -> bool:
    """Return whether `normalize_activate` computes what a batch norm, an activation and SE would, also for observers.

    Not for small maps, see `set_fused`, and where "auto" finds no compiler; nor under `torch.compile` and
    `torch.jit.trace`, transforms of `torch.func` and forward-mode derivatives.

    Args:
        y: (N, C, *spatial), the input of the batch norm.
    """
    if torch.compiler.is_compiling() or not is_fusible_map(y) or not worthwhile(y, backends.SMALLEST_ACTIVATED):
        return False
    # The operations of ATen take twice the time of PyTorch's modules: only chosen by name.
    return fused_choice() == "aten" or fused_by(y.device) != "aten"


def normalize_activate(
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    eps: float,
    activation: MapActivation,
    excite: Callable[[Tensor], Tensor],
    group: Any = None,
) -> Tensor:
    """Normalize by the statistics of the batch, activate, and recalibrate.

    Backward needs y, which is saved, and values of (N, C) and (C,).

    Args:
        y: (N, C, *spatial), floating point, with values.
        weight, bias: (C,), of the batch norm, or None.
        running: changed in place, the count of batches too; or None.
        eps: added to the variance.
        activation: between batch norm and SE.
        excite: returns the gates (N, C) of a squeeze (N, C) in y's dtype; ordinary autograd.
        group: of `torch.distributed`, whose samples have their statistics in common; None is this process alone.

    Returns:
        (N, C, *spatial), in y's dtype.

    Raises:
        ValueError: one value for each channel alone; or another activation.
    """
    if activation not in _ACTIVATIONS:
        check_choice("activation", activation, MapActivation)
    if y.numel() == y.shape[1] and group is None:
        raise ValueError(f"expected more than 1 value per channel when training, got input size {tuple(y.shape)}")
    momentum = None if running is None else count_batch(running)
    weight = y.new_ones(y.shape[1]) if weight is None else weight
    bias = torch.zeros_like(weight) if bias is None else bias
    y = dense(y)
    alias, z, a, b, *tokens, p, mean, var = _Squeeze.apply(y, weight, bias, float(eps), activation, group)
    s = excite(z)
    if running is not None and momentum is not None:
        track(running, momentum, p + mean, var)
    fused: Tensor = _Scale.apply(alias, y, s, a, b, *tokens, p, activation)
    return fused
