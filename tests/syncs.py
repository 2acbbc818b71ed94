"""A block in which the host must not wait for the device, checked without a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["HostSyncError", "no_host_sync"]

aten = torch.ops.aten
# Operations whose result, or its shape, the host reads: on a GPU it waits for all work before them.
_SYNCHRONISING = {
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero, aten.item),
    *(aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount, aten.histc),
    *(aten.repeat_interleave, aten.lift_fresh),  # the last: torch.tensor of Python numbers, a synchronous copy
}
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}


class HostSyncError(AssertionError):
    """The host would wait for the device."""


class _Watch(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        if packet in _SYNCHRONISING:
            raise HostSyncError(f"{func} reads a value on the host")
        if packet in _INDEXING and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]):
            raise HostSyncError(f"{func} indexes with a mask, whose number of elements the host reads")
        result = func(*args, **(kwargs or {}))
        if packet in (aten._to_copy, aten.copy_):
            _check_copy(func, args[1] if packet is aten.copy_ else args[0], result, _non_blocking(func, args, kwargs))
        return result


def _non_blocking(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
    names = [argument.name for argument in func._schema.arguments]
    return bool({**dict(zip(names, args, strict=False)), **(kwargs or {})}.get("non_blocking"))


def _check_copy(func: Any, source: Tensor, target: Tensor, non_blocking: bool) -> None:
    """Between devices, which tensors without data have here as well (FakeTensorMode)."""
    if source.device.type != target.device.type and not non_blocking:
        raise HostSyncError(f"{func} copies from {source.device} to {target.device} synchronously")


def _refuse(name: str) -> Callable[..., Any]:
    def refused(*_: Any, **__: Any) -> Any:
        raise HostSyncError(f"Tensor.{name} reads values on the host")

    return refused


@contextmanager
def no_host_sync() -> Iterator[None]:
    """Raise `HostSyncError` at whatever would make the host wait for a GPU, on tensors of any device.

    `tolist` and `numpy` go around the dispatcher and are replaced meanwhile.
    """
    with (
        mock.patch.object(Tensor, "tolist", _refuse("tolist")),
        mock.patch.object(Tensor, "numpy", _refuse("numpy")),
        _Watch(),
    ):
        yield
