"""The passes over maps, by the backend of their device, or as the formulas are written where somebody follows them.

Each takes its tensors, the maps all of one shape, dtype and memory format, the others without gaps; then its numbers.
See `reference` for what they compute.
"""

from typing import Any

import torch
from torch import Tensor, nn

from senet.nn.fused import reference
from senet.nn.fused.backends import MapPasses, backend_for, enabled

__all__ = ["backward_elemt", "gradient", "is_followed", "reduce", "scale", "squeeze", "stats"]


def stats(*arguments: Any) -> tuple[Tensor, Tensor]:
    """See `reference.stats`."""
    return _passes(arguments).stats(*arguments)


def backward_elemt(*arguments: Any) -> Tensor:
    """See `reference.backward_elemt`."""
    return _passes(arguments).backward_elemt(*arguments)


def squeeze(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference.squeeze`."""
    return _passes(arguments).squeeze(*arguments)


def scale(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference.scale`."""
    return _passes(arguments).scale(*arguments)


def reduce(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference.reduce`."""
    return _passes(arguments).reduce(*arguments)


def gradient(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference.gradient`."""
    return _passes(arguments).gradient(*arguments)


def _passes(arguments: tuple[Any, ...]) -> MapPasses:
    """What runs a pass over maps: the formulas where gradients of gradients are wanted, or y is more than a tensor."""
    y = arguments[0]
    if is_followed(*arguments) or not y.numel() or type(y) not in (Tensor, nn.Parameter):
        return reference
    backend = backend_for(y.device)
    return backend.passes if y.dtype in backend.dtypes else reference


def is_followed(*arguments: Any) -> bool:
    """Whether somebody follows each operation, as transforms of tensors do, or nothing is to be fused."""
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or not enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
        # Of gradients in batches, which are no transform that is active.
        or any(isinstance(x, Tensor) and torch._C._functorch.is_legacy_batchedtensor(x) for x in arguments)
    )
