"""Batch norm, SE, sum and ReLU as one operation, for backends that support it.

One `autograd.Function` with the excitation inside. It keeps y, the output where there is a ReLU, and one buffer of
(N, C) and (N, H). Everything but maps is float32, under autocast too: gradients of SE's weights are then closer to
float64 than those of PyTorch's modules, whose layers autocast computes in half precision.

On a GPU the host's time decides where maps are small. So modules are read through their dictionaries, since attributes
of modules take ten times as long, and tensors are checked together.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from senet.nn.block import SqueezeExcitation
from senet.nn.epsilon import read_epsilon
from senet.nn.fused import reference
from senet.nn.fused.backends import fused_choice, whole_for, worthwhile
from senet.nn.fused.block_inspection import excitation, may_be_one, squeezes_whole
from senet.nn.fused.interface import Excitation, Needs, Running, WholeBackend
from senet.nn.fused.memory_format import convert, dense

__all__ = ["evaluate", "train", "train_excitation", "train_plain", "whole_backend"]

_FLOATS = frozenset((torch.float32, torch.bfloat16, torch.float16))
_TENSORS = frozenset((Tensor, nn.Parameter))
_dtype: Any = Tensor.dtype.__get__  # type: ignore[attr-defined]
_shape: Any = Tensor.shape.__get__  # type: ignore[attr-defined]


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
            torch._C._increment_version(running[:2] if running[2] is None else running[:3])  # type: ignore[arg-type]
        ctx.save_for_backward(y, None if skip is None else out, keep, weight, bias, w1, b1, w2, b2)
        ctx.call = backend, eps, options
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        y, out, keep, weight, bias, w1, b1, w2, b2 = ctx.saved_tensors
        backend, eps, options = ctx.call
        needs = Needs(*ctx.needs_input_grad[4:])
        se = None if options is None else Excitation(w1, b1, w2, b2, *options)
        if torch.is_grad_enabled() or _is_observed(g) or torch._C._functorch.is_legacy_batchedtensor(g):
            return (None, None, None, None, *_by_formulas(g, y, out, weight, bias, se, eps, needs))
        if g.stride() != y.stride():
            g = convert(g, y)
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
    """Compute the gradients by autograd of the reference, with a graph for gradients of gradients."""
    create_graph = torch.is_grad_enabled()
    if out is not None:
        g = torch.where(out.detach() <= 0, 0, g)
    layers = (None,) * 4 if se is None else se[:4]
    inputs = [x for x, needed in zip((y, weight, bias, *layers), needs[:7], strict=True) if needed and x is not None]
    if not inputs:
        return [None] * 7 + [g if needs.skip else None]
    with torch.enable_grad(), torch.autocast(y.device.type, enabled=False):
        x = reference.recalibrate(y, weight, bias, eps, se)
        gradients = iter(torch.autograd.grad(x, inputs, g, create_graph=create_graph, allow_unused=True))
    return [*[next(gradients) if needed else None for needed in needs[:7]], g if needs.skip else None]


def whole_backend(y: Tensor) -> WholeBackend | None:
    """Return the backend of the whole operation on a map's device; None if it takes several passes."""
    return whole_for(y.device)


def train(bn: nn.Module, se: SqueezeExcitation | None, y: Tensor, skip: Tensor | None) -> Tensor | None:
    """Normalize by the statistics of the batch, recalibrate, and with a skip add it before a ReLU.

    Args:
        bn: a batch norm in training mode, with no hooks that are to be called.
        se: the block, or None for batch norm alone.
        y: (N, C, *spatial), of bn's channels.
        skip: of y's shape and dtype.

    Returns:
        (N, C, *spatial); None if the backend does not support this call, which then changed nothing.
    """
    if torch.compiler.is_compiling():
        return None
    backend = whole_backend(y)
    if backend is None or _is_observed(y):
        return None
    block = excitation(se) if se is not None and squeezes_whole(se, y) else None
    if se is not None and block is None:
        return None
    own = bn.__dict__
    parameters, buffers = own["_parameters"], own["_buffers"]
    if "weight" not in parameters or "bias" not in parameters:  # attributes, computed by another tool
        return None
    mean, var = buffers["running_mean"], buffers["running_var"]
    running = None
    if mean is not None and var is not None and own["training"] and own["track_running_stats"]:
        running = Running(mean, var, buffers["num_batches_tracked"], own["momentum"])
    return _whole(backend, y, parameters["weight"], parameters["bias"], running, own["eps"], block, skip)


def train_excitation(
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    eps: float,
    block: Excitation | None,
    skip: Tensor | None,
) -> Tensor | None:
    """Compute `train` with the tensors of a batch norm and SE.

    Args:
        y: (N, C, *spatial).
        weight, bias: (C,), of the batch norm, or None.
        running: changed in place, the count of batches too; or None.
        eps: added to the variance.
        block: the excitation; None for batch norm alone.
        skip: of y's shape and dtype, added before a ReLU; None leaves both out.

    Returns:
        (N, C, *spatial); None if the backend does not support this call, which then changed nothing.
    """
    if torch.compiler.is_compiling():
        return None
    backend = whole_backend(y)
    if backend is None or _is_observed(y):
        return None
    return _whole(backend, y, weight, bias, running, eps, block, skip)


def _whole(
    backend: WholeBackend,
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    eps: float,
    block: Excitation | None,
    skip: Tensor | None,
) -> Tensor | None:
    """Compute `train_excitation` by a backend."""
    values = y.numel()
    if values == 0 or values == y.shape[1] or not _accepts(backend, y, weight, bias, running, block, skip):
        return None
    y = dense(y)
    if skip is not None and skip.stride() != y.stride():
        skip = convert(skip, y)
    layers, options = ((None,) * 4, None) if block is None else (block[:4], block[4:])
    out: Tensor = _Whole.apply(backend, running, eps, options, y, weight, bias, *layers, skip)
    return out


def train_plain(bn: nn.Module, y: Tensor, skip: Tensor) -> Tensor | None:
    """Compute `train` without SE, where a backend that has the whole operation was chosen by name.

    With "auto", batch norm alone is PyTorch's own: how much faster one operation is depends on the GPU.
    """
    return train(bn, None, y, skip) if fused_choice() == "triton" and worthwhile(y) else None


def evaluate(bn: nn.Module, se: SqueezeExcitation, y: Tensor, skip: Tensor | None) -> Tensor | None:
    """Compute the same as `train` with running statistics and without gradients.

    Not if every gate is 1, as after an identity initialization: PyTorch's batch norm is bitwise the plain network's.

    Returns:
        (N, C, *spatial); None if the backend does not support this call.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return None
    backend = whole_backend(y)
    # Observed maps first: a trace's sizes are tensors, and looking at one would become a constant of the trace.
    if backend is None or _is_observed(y) or not y.numel():
        return None
    block = excitation(se) if squeezes_whole(se, y) else None
    if block is None or may_be_one(se, block):
        return None
    parameters, buffers = bn._parameters, bn._buffers
    mean, var = buffers["running_mean"], buffers["running_var"]
    if mean is None or var is None or "weight" not in parameters or "bias" not in parameters:
        return None
    weight, bias = parameters["weight"], parameters["bias"]
    if not _accepts(backend, y, weight, bias, Running(mean, var, None, None), block, skip):
        return None
    y = dense(y)
    if skip is not None and skip.stride() != y.stride():
        skip = convert(skip, y)
    return backend.evaluate(y, mean, var, weight, bias, read_epsilon(bn), block, skip)


def _is_observed(x: Tensor) -> bool:
    """Return whether transforms, dispatch modes or traces observe operations, or x is a tensor subclass."""
    return (
        type(x) not in _TENSORS
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._is_tracing()
    )


def _accepts(
    backend: WholeBackend,
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    block: Excitation | None,
    skip: Tensor | None,
) -> bool:
    """Return whether kernels may read all of this: they look at no shape, stride, dtype or device."""
    channels, dtype, device = y.shape[1], y.dtype, y.get_device()
    if dtype not in _FLOATS or y.ndim < 3:
        return False
    if skip is not None and (type(skip) not in _TENSORS or skip.dtype != dtype or skip.get_device() != device):
        return False
    tensors: list[Tensor] = []
    shapes: list[tuple[int, ...]] = []
    of_channels, hidden = (channels,), 0
    if weight is not None:
        tensors.append(weight)
        shapes.append(of_channels)
    if bias is not None:
        tensors.append(bias)
        shapes.append(of_channels)
    if running is not None:
        mean, var, count, _ = running
        tensors += (mean, var)
        shapes += (of_channels, of_channels)
        if count is not None and count.get_device() != device:
            return False
    if block is not None:
        w1, b1, w2, b2, *_ = block
        hidden = w1.shape[0]
        tensors += (w1, w2)
        shapes += ((hidden, channels), (channels, hidden))
        if b1 is not None:
            tensors.append(b1)
            shapes.append((hidden,))
        if b2 is not None:
            tensors.append(b2)
            shapes.append(of_channels)
    return (
        [*map(_shape, tensors)] == shapes
        and _FLOATS.issuperset(map(_dtype, tensors))
        and _TENSORS.issuperset(map(type, tensors))
        and {device}.issuperset(map(Tensor.get_device, tensors))
        and all(map(Tensor.is_contiguous, tensors))
        and backend.fits(channels, hidden, y.shape[0])
    )
