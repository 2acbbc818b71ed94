"""The rank of this process and the number of processes, from torchrun's environment variables."""

import os

__all__ = ["is_alone", "is_first", "rank_and_world_size"]


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank, from 0, and the number of processes, from torchrun's environment variables.

    Raises:
        ValueError: RANK or WORLD_SIZE is invalid.
    """
    found = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    for name, value in found.items():
        if value is not None and not value.isdecimal():
            raise ValueError(f"{name}={value!r} in the environment is no number: leave {name} to torchrun, or unset it")
    world_size = int(found["WORLD_SIZE"] or 1)
    if found["RANK"] is None and world_size > 1:
        raise ValueError(
            f"WORLD_SIZE={world_size} is in the environment without RANK: leave both to torchrun, or unset it"
        )
    rank = int(found["RANK"] or 0)
    if rank >= world_size:
        raise ValueError(
            f"RANK={rank} and WORLD_SIZE={world_size} are in the environment: ranks go from 0 to {world_size - 1}"
        )
    return rank, world_size


def is_alone() -> bool:
    """Return whether this process trains alone: torchrun started no other one, or did not start it."""
    return rank_and_world_size()[1] == 1


def is_first() -> bool:
    """Return whether this process writes the files and reports to the user."""
    return rank_and_world_size()[0] == 0
