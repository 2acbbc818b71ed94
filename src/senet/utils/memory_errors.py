"""Recognize out-of-memory errors, and read the sizes in their messages."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["is_out_of_memory", "memory_sizes", "suggesting_batch"]

# Texts of out-of-memory errors without an exception class: PyTorch's CPU and MPS allocators, CUDA memory outside the
# caching allocator (context, pinned memory, NCCL buffers), and CUDA libraries.
_WORDS = (
    *("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
_SIZE = r"([\d.]+) (GiB|MiB|KiB|bytes)"
_IN_GIB = {"GiB": 1.0, "MiB": 2.0**-10, "KiB": 2.0**-20, "bytes": 2.0**-30}


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception is an out-of-memory error.

    Args:
        error: Python's MemoryError, `torch.OutOfMemoryError`, or a RuntimeError from PyTorch with such a message;
            also if raised by a data loader's process or thread.
    """
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def memory_sizes(error: BaseException) -> str:
    """Return the sizes in an error's message, in GiB, as " (...)", or "" if there are none."""
    text = str(error)
    tried = re.search(rf"[Tt]ried to allocate {_SIZE}", text)
    free = re.search(rf"GPU (\d+) has a total capacity of {_SIZE} of which {_SIZE} is free", text)
    found = []
    if tried is not None:
        found.append(f"tried to allocate {_gib(*tried.groups())}")
    if free is not None:
        found.append(f"{_gib(*free.groups()[3:])} of {_gib(*free.groups()[1:3])} are free on GPU {free[1]}")
    return f" ({', '.join(found)})" if found else ""


def _gib(number: str, unit: str) -> str:
    return f"{float(number) * _IN_GIB[unit]:,.2f} GiB"


@contextmanager
def suggesting_batch(batch: int) -> Iterator[None]:
    """Add a note that suggests a smaller batch to an out-of-memory error within a block.

    The error keeps its class, so that callers can retry.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            error.add_note(f"out of memory with batch={batch}: give a smaller batch{memory_sizes(error)}")
        raise
