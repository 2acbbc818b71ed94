"""The check for host syncs sees what it is for: otherwise tests that use it would pass whatever the code does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.syncs import HostSyncError, no_host_sync

WAITING: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool(x.isfinite().all()),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "assignment by mask": lambda x: x.__setitem__(x > 0, torch.zeros(3)),
    "masked_select": lambda x: x.masked_select(x > 0),
    "bincount": lambda x: torch.bincount(x.long()),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "tensor of numbers": lambda x: torch.tensor([1.0, 2.0]),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, x.long()),
}


@pytest.mark.parametrize("name", WAITING)
def test_waiting_is_seen(name: str) -> None:
    x = torch.arange(3.0) + 1
    with no_host_sync(), pytest.raises(HostSyncError):
        WAITING[name](x)


def test_work_on_the_device_is_allowed() -> None:
    x, places = torch.arange(6.0).view(2, 3), torch.tensor([1, 0])
    with no_host_sync():
        y = x[places].flip(-1).where(x > 2, torch.zeros(()))
        y.copy_(x, non_blocking=True)
        x.index_add_(1, torch.arange(3), torch.ones(2, 3))
    assert y.shape == (2, 3)
    # The operations are done, and not passed over: a copy of x, and one more in each column of x.
    assert torch.equal(y, torch.arange(6.0).view(2, 3))
    assert torch.equal(x, y + 1)


def test_synchronous_copies_between_devices_are_seen() -> None:
    with FakeTensorMode():
        x = torch.empty(3, device="cuda")
        with no_host_sync():
            x.to(torch.float64)
            x.copy_(torch.empty(3), non_blocking=True)
            with pytest.raises(HostSyncError, match="from cuda:0 to cpu synchronously"):
                x.cpu()
            with pytest.raises(HostSyncError, match="from cpu to cuda:0 synchronously"):
                torch.empty(3).to("cuda")
            with pytest.raises(HostSyncError, match="from cpu to cuda:0 synchronously"):
                x.copy_(torch.empty(3))
