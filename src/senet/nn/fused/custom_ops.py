"""The whole operation as operators of PyTorch, which `torch.compile` calls; `set_fused("triton")` imports them.

The batch's statistics are results, and running ones are updated outside: an operator that changes its arguments has no
gradients. Maps of any memory format are accepted, as a compiler chooses those of gradients.
"""

from typing import Any

import torch
from torch import Tensor

from senet.nn.fused.backends import whole_for
from senet.nn.fused.interface import Excitation, Needs, Running, WholeBackend
from senet.nn.fused.memory_format import convert, dense

__all__ = ["normalize", "normalize_backward"]


def _backend(y: Tensor) -> WholeBackend:
    found = whole_for(y.device)
    if found is None:
        raise RuntimeError(
            f"this network was compiled with Triton's kernels, which do not run on {y.device} now; compile it again "
            f"after set_fused"
        )
    return found


def _contiguous(*values: Tensor | None) -> list[Tensor | None]:
    return [x if x is None else x.contiguous() for x in values]


@torch.library.custom_op("senet::normalize", mutates_args=())
def normalize(
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    skip: Tensor | None,
    eps: float,
    gain: float,
    gate: str,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute relu(se(bn(y)) + skip), or se(bn(y)) without a skip.

    Args:
        y: (N, C, *spatial).
        weight, bias: (C,).
        w1, b1, w2, b2, gain, gate, activation: see `senet.nn.fused.interface.Excitation`.
        skip: (N, C, *spatial).
        eps: added to the variance.

    Returns:
        The map (N, C, *spatial), what backward needs, and the batch's mean and unbiased variance (C,).
    """
    y = dense(y)
    skip = None if skip is None else convert(skip, y)
    weight, bias, *layers = _contiguous(weight, bias, w1, b1, w2, b2)
    w1, b1, w2, b2 = layers  # type: ignore[assignment]
    se = Excitation(w1, b1, w2, b2, gain, gate, activation)
    mean, var = (y.new_zeros(y.shape[1], dtype=torch.float32) for _ in range(2))
    # With a momentum of 1 running statistics become the batch's.
    out, keep = _backend(y).forward(y, weight, bias, Running(mean, var, None, 1.0), eps, se, skip)
    return out, keep, mean, var


@normalize.register_fake
def _(y: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    samples, channels, hidden = y.shape[0], y.shape[1], arguments[2].shape[0]
    keep = y.new_empty((4 + 2 * samples) * channels + samples * hidden, dtype=torch.float32)
    mean, var = (y.new_empty(channels, dtype=torch.float32) for _ in range(2))
    return torch.empty_like(dense(y)), keep, mean, var


@torch.library.custom_op("senet::normalize_backward", mutates_args=())
def normalize_backward(
    g: Tensor,
    y: Tensor,
    out: Tensor | None,
    keep: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    eps: float,
    gain: float,
    gate: str,
    activation: str,
    needs: list[bool],
) -> list[Tensor]:
    """Compute the gradients of `normalize` that are needed, in the order of `senet.nn.fused.interface.Needs`."""
    y = dense(y)
    weight, bias, *layers = _contiguous(weight, bias, w1, b1, w2, b2)
    w1, b1, w2, b2 = layers  # type: ignore[assignment]
    se = Excitation(w1, b1, w2, b2, gain, gate, activation)
    found = _backend(y).backward(convert(g, y), y, out, keep, weight, bias, se, eps, Needs(*needs))
    return [x for x in found if x is not None]


@normalize_backward.register_fake
def _(g: Tensor, y: Tensor, out: Any, keep: Any, *arguments: Any) -> list[Tensor]:
    *parameters, _, _, _, _, needs = arguments
    y = dense(y)
    likes = (y, *parameters, y)
    return [torch.empty_like(x) for x, needed in zip(likes, needs, strict=True) if needed]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    y, weight, bias, w1, b1, w2, b2, skip, *ctx.options = inputs
    out, keep, mean, var = output
    ctx.mark_non_differentiable(keep, mean, var)
    ctx.save_for_backward(y, None if skip is None else out, keep, weight, bias, w1, b1, w2, b2)


def _backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    needs = list(ctx.needs_input_grad[:8])
    found = iter(normalize_backward(g, *ctx.saved_tensors, *ctx.options, needs))
    return (*[next(found) if needed else None for needed in needs], None, None, None, None)


normalize.register_autograd(_backward, setup_context=_keep_for_backward)
