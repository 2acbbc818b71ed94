"""Batch norm, SE, sum and ReLU as one operation, for a backend that computes them as one.

One `autograd.Function` with the excitation inside. It keeps y, the output where there is a ReLU, and one buffer of
(N, C) and (N, H). Everything but maps is float32, under autocast too: gradients of SE's weights are then closer to
float64 than those of PyTorch's modules, whose layers autocast computes in half precision.
"""

from typing import Any

import torch
from torch import Tensor, nn

from senet.block import SqueezeExcitation
from senet.fusion import formulas
from senet.fusion.blocks import excitation, may_be_one
from senet.fusion.layout import dense, like
from senet.fusion.operands import Excitation, Needs, Running, WholeBackend
from senet.fusion.passes import is_followed

__all__ = ["evaluate", "train"]

_FLOATS = frozenset((torch.float32, torch.bfloat16, torch.float16))
_TENSORS = frozenset((Tensor, nn.Parameter))


class _Whole(torch.autograd.Function):
    """relu(se(bn(y)) + skip), or se(bn(y)) without a skip."""

    @staticmethod
    def forward(
        ctx: Any,
        backend: WholeBackend,
        running: Running | None,
        eps: float,
        options: tuple[float, str, str] | None,
        y: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        w1: Tensor | None,
        b1: Tensor | None,
        w2: Tensor | None,
        b2: Tensor | None,
        skip: Tensor | None,
    ) -> Tensor:
        se = None if options is None else Excitation(w1, b1, w2, b2, *options)  # type: ignore[arg-type]
        out, keep = backend.forward(y, weight, bias, running, eps, se, skip)
        if running is not None:  # kernels change them without PyTorch's knowledge
            torch._C._increment_version(running[:2] if running.count is None else running[:3])  # type: ignore[arg-type]
        ctx.save_for_backward(y, None if skip is None else out, keep, weight, bias, w1, b1, w2, b2)
        ctx.call = backend, eps, options
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        y, out, keep, weight, bias, w1, b1, w2, b2 = ctx.saved_tensors
        backend, eps, options = ctx.call
        needs = Needs(*ctx.needs_input_grad[4:])
        se = None if options is None else Excitation(w1, b1, w2, b2, *options)
        if is_followed(g):
            return (None, None, None, None, *_by_formulas(g, y, out, weight, bias, se, eps, needs))
        if g.stride() != y.stride():
            g = like(g, y)
        return (None, None, None, None, *backend.backward(g, y, out, keep, weight, bias, se, eps, needs))


def _by_formulas(
    g: Tensor,
    y: Tensor,
    out: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    se: Excitation | None,
    eps: float,
    needs: Needs,
) -> list[Tensor | None]:
    """The gradients by ordinary autograd of the formulas, with a graph where gradients of gradients are wanted."""
    create_graph = torch.is_grad_enabled()
    if out is not None:
        g = torch.where(out.detach() <= 0, 0, g)
    layers = (None,) * 4 if se is None else se[:4]
    inputs = [x for x, needed in zip((y, weight, bias, *layers), needs[:7], strict=True) if needed and x is not None]
    if not inputs:
        return [None] * 7 + [g if needs.skip else None]
    with torch.enable_grad(), torch.autocast(y.device.type, enabled=False):
        x = formulas.recalibrate(y, weight, bias, eps, se)
        ways = iter(torch.autograd.grad(x, inputs, g, create_graph=create_graph, allow_unused=True))
    return [*[next(ways) if needed else None for needed in needs[:7]], g if needs.skip else None]


def train(
    backend: WholeBackend,
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    eps: float,
    se: SqueezeExcitation | None,
    skip: Tensor | None,
) -> Tensor | None:
    """Normalise by the statistics of the batch, recalibrate, and with a skip add it before a ReLU.

    Args:
        backend: computes it.
        y: (N, C, *spatial).
        weight, bias: (C,), of the batch norm, or None.
        running: changed in place, the count too; or None.
        eps: added to the variance.
        se: a plain block, or None for batch norm alone.
        skip: (N, C, *spatial), of y's dtype.

    Returns:
        (N, C, *spatial); None where this is not for the backend, and nothing was changed.
    """
    block = None if se is None else excitation(se)
    if _is_watched(y) or not _accepts(backend, y, (weight, bias), running, block, se, skip):
        return None
    y = dense(y)
    if skip is not None and skip.stride() != y.stride():
        skip = like(skip, y)
    layers, options = ((None,) * 4, None) if block is None else (_without_gaps(block[:4]), block[4:])
    weight, bias = _without_gaps((weight, bias))
    out: Tensor = _Whole.apply(backend, running, eps, options, y, weight, bias, *layers, skip)
    return out


def evaluate(
    backend: WholeBackend,
    y: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    se: SqueezeExcitation,
    skip: Tensor | None,
) -> Tensor | None:
    """Compute the same as `train`, by running statistics and without gradients.

    Not where every gate is 1, as at an identity start: PyTorch's batch norm keeps the bits of the plain network.

    Returns:
        (N, C, *spatial); None where this is not for the backend.
    """
    block = excitation(se)
    running = Running(mean, var, None, None)
    if is_followed(y) or not _accepts(backend, y, (weight, bias), running, block, se, skip):
        return None
    if block is None or may_be_one(se, block):
        return None
    y = dense(y)
    if skip is not None and skip.stride() != y.stride():
        skip = like(skip, y)
    weight, bias = _without_gaps((weight, bias))
    block = Excitation(*_without_gaps(block[:4]), *block[4:])  # type: ignore[call-arg, arg-type]
    return backend.evaluate(y, mean, var, weight, bias, eps, block, skip)


def _is_watched(y: Tensor) -> bool:
    """Whether a compiler or a dispatch mode looks at each operation, or y is more than a tensor."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0 or type(y) not in _TENSORS


def _accepts(
    backend: WholeBackend,
    y: Tensor,
    of_bn: tuple[Tensor | None, ...],
    running: Running | None,
    block: Excitation | None,
    se: SqueezeExcitation | None,
    skip: Tensor | None,
) -> bool:
    """Whether kernels may read all of this: they look at no shape, dtype or device."""
    if y.dtype not in _FLOATS or (se is not None and block is None):
        return False
    channels, device = y.shape[1], y.get_device()
    if skip is not None and (type(skip) not in _TENSORS or skip.dtype != y.dtype or skip.get_device() != device):
        return False
    for x in of_bn if running is None else (*of_bn, running.mean, running.var):
        if x is not None and not _is_read(x, device, channels):
            return False
    if running is not None and not (running.mean.is_contiguous() and running.var.is_contiguous()):
        return False
    if block is None:
        return backend.fits(channels, 0)
    w1, b1, w2, b2 = block[:4]
    hidden = w1.shape[0]
    return (
        _is_read(w1, device, hidden)
        and _is_read(w2, device, channels)
        and w1.shape[1:] == (channels,)
        and w2.shape[1:] == (hidden,)
        and (b1 is None or _is_read(b1, device, hidden))
        and (b2 is None or _is_read(b2, device, channels))
        and backend.fits(channels, hidden)
    )


def _is_read(x: Tensor, device: int, length: int) -> bool:
    return type(x) in _TENSORS and x.dtype in _FLOATS and x.get_device() == device and x.shape[:1] == (length,)


def _without_gaps(values: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Parameters as kernels read them; that a view of a larger tensor is copied, autograd sees."""
    return tuple(x if x is None or x.is_contiguous() else x.contiguous() for x in values)
