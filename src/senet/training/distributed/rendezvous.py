"""How the processes that torchrun started find each other, anew after each restart, and what outlives a restart."""

import os
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from senet.training.distributed.errors import PeerLostError
from senet.training.distributed.gpus import backend_for

__all__ = ["Launch", "is_alone", "is_first", "meet", "place"]

_POLL = 0.02  # seconds
_stores: Any = torch.distributed  # which types of stores are not declared to be of


def place() -> tuple[int, int]:
    """The rank of this process, from 0, and how many there are, by what torchrun says in the environment.

    Raises:
        ValueError: numbers that cannot be.
    """
    found = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    for name, value in found.items():
        if value is not None and not value.isdecimal():
            raise ValueError(f"{name}={value!r} in the environment is no number: leave {name} to torchrun, or unset it")
    world = int(found["WORLD_SIZE"] or 1)
    if found["RANK"] is None and world > 1:
        raise ValueError(f"WORLD_SIZE={world} is in the environment without RANK: leave both to torchrun, or unset it")
    rank = int(found["RANK"] or 0)
    if rank >= world:
        raise ValueError(f"RANK={rank} and WORLD_SIZE={world} are in the environment: ranks go from 0 to {world - 1}")
    return rank, world


def is_alone() -> bool:
    """Whether torchrun started this process alone, or did not start it."""
    return place()[1] == 1


def is_first() -> bool:
    """Whether this process is the one that writes and tells."""
    return place()[0] == 0


class Launch:
    """One call of torchrun, from its first processes to those that it starts in their place.

    What is noted here lies in torchrun's own store. The number of restarts would not do: machines count apart, and do
    not count those that others made necessary; and it says nothing of what an earlier launch left in a folder.

    Args:
        store: of `torch.distributed`, which outlives processes; None where torchrun did not start this one.
    """

    def __init__(self, store: Any = None) -> None:
        self._store = store

    @classmethod
    def of_this_process(cls, timeout: float) -> "Launch":
        """For a process that torchrun started alone, or did not start."""
        if not _has_store():
            return cls()
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return cls(_stores.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=timeout)))

    def began(self, output: Path) -> bool:
        """Whether a process of this launch has begun or resumed the run in a folder."""
        return self._store is not None and self._store.check([_key(output)])

    def begin(self, output: Path) -> None:
        """Note that a process of this launch begins or resumes the run in a folder."""
        if self._store is not None:
            self._store.set(_key(output), "")


def _has_store() -> bool:
    """Whether the store where processes meet is torchrun's own, and outlives them."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _key(output: Path) -> str:
    return f"senet/began/{output.resolve()}"


def meet(device: torch.device, timeout: float) -> Launch:
    """Make PyTorch's process group.

    Args:
        device: selects the backends, see `backend_for`.
        timeout: seconds to wait for the others, here and later.

    Raises:
        PeerLostError: not all came.
        ValueError: the environment does not say where to meet.
    """
    if torch.distributed.is_initialized():
        return Launch()
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, world = next(iter(rendezvous("env://", timeout=timedelta(seconds=timeout))))
        while isinstance(store, _stores.PrefixStore):
            store = store.underlying_store  # whose keys are the same after a restart
        meeting = _agree(store, rank, world, timeout)
        torch.distributed.init_process_group(
            backend_for(device),
            store=_stores.PrefixStore(meeting, store),
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=timeout),
        )
    except RuntimeError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).partition("\n")[0].partition(". ")[0][:160]
        raise PeerLostError(
            f"the {os.environ['WORLD_SIZE']} processes do not find each other at {where} ({reason}): start all of "
            f"them, with an address that each can reach; each waits {timeout:g} s, and --timeout gives it longer"
        ) from error
    return Launch(store if _has_store() else None)


def _agree(store: Any, rank: int, world: int, timeout: float) -> str:
    """A name for this meeting, which no earlier one had that left its keys in the store.

    Each process asks by a name of its own, and the first one answers whoever asks until all have their answer: those
    that asked before a restart are gone, and take none.
    """
    mine = f"senet/{uuid.uuid4().hex}"
    if rank:
        store.set(f"senet/asks/{rank}", mine)
        meeting: str = store.get(mine).decode()
        store.add(f"{meeting}/here", 1)
        return meeting
    answered: set[str] = set()
    end = time.monotonic() + timeout
    while store.add(f"{mine}/here", 0) < world - 1:
        for key in (f"senet/asks/{other}" for other in range(1, world)):
            asks = store.get(key).decode() if store.check([key]) else ""
            if asks and asks not in answered:
                store.set(asks, mine)
                answered.add(asks)
        if time.monotonic() > end:
            came = store.add(f"{mine}/here", 0) + 1
            raise torch.distributed.DistStoreError(f"{came} of {world} came within {timeout:g} s")
        time.sleep(_POLL)
    return mine
