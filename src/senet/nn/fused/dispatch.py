"""The passes over maps: run by the backend of the device, or by the reference if operations are observed.

Arguments are tensors, then numbers. All maps have one shape, dtype and memory format; other tensors are contiguous.
`reference.py` defines the results.
"""

from typing import Any

import torch
from torch import Tensor, nn

from senet.nn.fused import reference
from senet.nn.fused.backends import MapPasses, backend_for, enabled

__all__ = ["backward_elemt", "gradient", "is_followed", "reduce", "scale", "squeeze", "stats"]


def stats(*arguments: Any) -> tuple[Tensor, Tensor]:
    """See `reference.stats`."""
    return _select(arguments).stats(*arguments)


def backward_elemt(*arguments: Any) -> Tensor:
    """See `reference.backward_elemt`."""
    return _select(arguments).backward_elemt(*arguments)


def squeeze(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference.squeeze`."""
    return _select(arguments).squeeze(*arguments)


def scale(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference.scale`."""
    return _select(arguments).scale(*arguments)


def reduce(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference.reduce`."""
    return _select(arguments).reduce(*arguments)


def gradient(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference.gradient`."""
    return _select(arguments).gradient(*arguments)


def _select(arguments: tuple[Any, ...]) -> MapPasses:
    """Select the passes: the reference for gradients of gradients and tensor subclasses, else the backend's."""
    y = arguments[0]
    if is_followed(*arguments) or not y.numel() or type(y) not in (Tensor, nn.Parameter):
        return reference
    backend = backend_for(y.device)
    return backend.passes if y.dtype in backend.dtypes else reference


def is_followed(*arguments: Any) -> bool:
    """Return whether transforms or traces observe each operation, or fusing is off."""
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or not enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
        # Batched gradients, which are not an active transform.
        or any(isinstance(x, Tensor) and torch._C._functorch.is_legacy_batchedtensor(x) for x in arguments)
    )
