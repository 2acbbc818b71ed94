"""How the processes that torchrun started meet, also after a restart, and what outlives a restart."""

import os
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from senet.training.distributed.errors import short_reason
from senet.training.distributed.gpus import backend_for
from senet.utils.errors import PeerLostError

__all__ = ["Launch", "meet"]

_POLL = 0.02  # seconds
_stores: Any = torch.distributed  # whose store classes have no type stubs


class Launch:
    """One call of torchrun: its first processes, and those that it starts in their place.

    What is recorded here is kept in torchrun's own store. The number of restarts would not do: machines count
    separately, do not count restarts that others caused, and know nothing of an earlier launch.

    Args:
        store: of `torch.distributed`, which outlives processes; None if torchrun did not start this one.
    """

    def __init__(self, store: Any = None) -> None:
        self._store = store

    @classmethod
    def of_this_process(cls, timeout: float) -> "Launch":
        """Return the launch of a process that trains alone, whether torchrun started it or not."""
        if not _has_store():
            return cls()
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return cls(_stores.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=timeout)))

    def has_begun(self, output: Path) -> bool:
        """Return whether a process of this launch has begun or resumed the run in a folder."""
        return self._store is not None and self._store.check([_key(output)])

    def begin(self, output: Path) -> None:
        """Record that a process of this launch begins or resumes the run in a folder."""
        if self._store is not None:
            self._store.set(_key(output), "")


def _has_store() -> bool:
    """Return whether the processes meet in torchrun's own store, which outlives them."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _key(output: Path) -> str:
    return f"senet/began/{output.resolve()}"


def meet(device: torch.device, timeout: float) -> Launch:
    """Make PyTorch's process group, unless there is one.

    Args:
        device: selects the backends, see `backend_for`.
        timeout: seconds to wait for the others, here and later.

    Raises:
        PeerLostError: not all processes came.
        ValueError: the environment does not name the address.
    """
    if torch.distributed.is_initialized():
        return Launch()
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, world_size = next(iter(rendezvous("env://", timeout=timedelta(seconds=timeout))))
        while isinstance(store, _stores.PrefixStore):
            store = store.underlying_store  # whose keys are the same after a restart
        meeting = _agree(store, rank, world_size, timeout)
        torch.distributed.init_process_group(
            backend_for(device),
            store=_stores.PrefixStore(meeting, store),
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout),
        )
    except RuntimeError as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise PeerLostError(
            f"the {os.environ['WORLD_SIZE']} processes do not find each other at {address} "
            f"({short_reason(error, 160)}): start all of them, with an address that each can reach; each waits "
            f"{timeout:g} s, and --timeout sets a longer wait"
        ) from error
    return Launch(store if _has_store() else None)


def _agree(store: Any, rank: int, world_size: int, timeout: float) -> str:
    """Return a name for this meeting that no earlier meeting with keys in the store had.

    Each process asks under a name of its own, and the first one answers every request until all have an answer.
    Requests from before a restart get an answer that nobody reads.
    """
    own = f"senet/{uuid.uuid4().hex}"
    if rank:
        store.set(f"senet/asks/{rank}", own)
        meeting: str = store.get(own).decode()
        store.add(f"{meeting}/here", 1)
        return meeting
    answered: set[str] = set()
    end = time.monotonic() + timeout
    while store.add(f"{own}/here", 0) < world_size - 1:
        for key in (f"senet/asks/{other}" for other in range(1, world_size)):
            request = store.get(key).decode() if store.check([key]) else ""
            if request and request not in answered:
                store.set(request, own)
                answered.add(request)
        if time.monotonic() > end:
            present = store.add(f"{own}/here", 0) + 1
            raise torch.distributed.DistStoreError(f"{present} of {world_size} came within {timeout:g} s")
        time.sleep(_POLL)
    return own
