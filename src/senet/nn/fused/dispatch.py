"""The passes over maps: run by the backend of the device, or by the reference if operations are observed.

Arguments are tensors, then numbers. All maps have one shape, dtype and memory format; other tensors are contiguous.
`reference.py` defines the results.
"""

from typing import Any

import torch
from torch import Tensor, nn

from senet.nn.fused import reference, reference_activated
from senet.nn.fused.backends import ActivatedPasses, MapPasses, Passes, backend_for, enabled

__all__ = [
    "activated_elemt",
    "activated_gradient",
    "activated_mean",
    "activated_reduce",
    "activated_scale",
    "activated_squeeze",
    "backward_elemt",
    "gradient",
    "is_followed",
    "reduce",
    "scale",
    "squeeze",
    "stats",
]


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


def activated_mean(*arguments: Any) -> Tensor:
    """See `reference_activated.activated_mean`."""
    return _select_activated(arguments).activated_mean(*arguments)


def activated_elemt(*arguments: Any) -> Tensor:
    """See `reference_activated.activated_elemt`."""
    return _select_activated(arguments).activated_elemt(*arguments)


def activated_squeeze(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference_activated.activated_squeeze`."""
    return _select_activated(arguments).activated_squeeze(*arguments)


def activated_scale(*arguments: Any) -> Tensor:
    """See `reference_activated.activated_scale`."""
    return _select_activated(arguments).activated_scale(*arguments)


def activated_reduce(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference_activated.activated_reduce`."""
    return _select_activated(arguments).activated_reduce(*arguments)


def activated_gradient(*arguments: Any) -> tuple[Tensor, ...]:
    """See `reference_activated.activated_gradient`."""
    return _select_activated(arguments).activated_gradient(*arguments)


def _select(arguments: tuple[Any, ...]) -> MapPasses:
    """Select the passes: the reference for gradients of gradients and tensor subclasses, else the backend's."""
    return _passes_for(arguments) or reference


def _select_activated(arguments: tuple[Any, ...]) -> ActivatedPasses:
    return _passes_for(arguments) or reference_activated


def _passes_for(arguments: tuple[Any, ...]) -> Passes | None:
    y = arguments[0]
    if is_followed(*arguments) or not y.numel() or type(y) not in (Tensor, nn.Parameter):
        return None
    backend = backend_for(y.device)
    return backend.passes if y.dtype in backend.dtypes else None


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
