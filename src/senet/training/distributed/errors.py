"""Errors of several processes: which process reports an error, and which errors mean that another process is lost."""

import re
from dataclasses import dataclass

import torch

from senet.utils.errors import PeerLostError, TrainingError
from senet.utils.memory_errors import is_out_of_memory

__all__ = [
    "Reporting",
    "explain_peer_loss",
    "final_error",
    "is_reported_by_peer",
    "mark_shared",
    "reporting",
    "short_reason",
]

# The attribute in which an exception of any class keeps its `Reporting`.
_ATTRIBUTE = "_senet_reporting"
# gloo's errors have no class: PyTorch raises them as plain RuntimeErrors, as it does any error of backward. They name
# gloo's source file; after a time-out, further operations say "Application timeout caused pair closure" instead.
# NCCL and the stores raise subclasses of `torch.distributed.DistError`, and need no message.
_GLOO = re.compile(r"gloo|pair closure", re.IGNORECASE)
# No class of PyTorch distinguishes a time-out, whether gloo, NCCL or a store raises it. "timed out connecting" means
# that nothing listens: the process has ended.
_TIMEOUT = re.compile(r"time(?:d )?out(?! connecting)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Which process reports an error.

    Attributes:
        shared: all processes raise the same error.
        by_peer: another process reports it.
    """

    shared: bool = False
    by_peer: bool = False


def reporting(error: BaseException) -> Reporting:
    """Return which process reports an error: this one, unless `mark_shared` or `final_error` recorded otherwise."""
    found: Reporting = getattr(error, _ATTRIBUTE, Reporting())
    return found


def mark_shared(error: Exception, rank: int) -> Exception:
    """Record that all processes raise an error, and that the first process reports it.

    Args:
        error: the error raised in this process.
        rank: of this process.

    Returns:
        The same error.
    """
    vars(error)[_ATTRIBUTE] = Reporting(shared=True, by_peer=rank > 0)
    return error


def final_error(message: str, error: Exception, rank: int, world_size: int) -> TrainingError:
    """Return the error that ends a run of several processes; it names the process unless all raise the same error.

    Args:
        message: of the new error.
        error: the error raised in this process.
        rank: of this process.
        world_size: number of processes.
    """
    is_shared, is_lost = reporting(error).shared, isinstance(error, PeerLostError)
    message = message if is_shared else f"process {rank} of {world_size}: {message}"
    final = (PeerLostError if is_lost else TrainingError)(message)
    # All remaining processes may notice a lost one. The first two report it, since the first may be the lost one.
    vars(final)[_ATTRIBUTE] = Reporting(shared=is_shared, by_peer=rank > 0 and (is_shared or (is_lost and rank > 1)))
    return final


def is_reported_by_peer(error: BaseException) -> bool:
    """Return whether another process reports an error."""
    return reporting(error).by_peer


def explain_peer_loss(error: Exception, timeout: float) -> str:
    """Explain an error of PyTorch that another process caused.

    Args:
        error: any error of a collective operation, or of a training step.
        timeout: seconds that processes wait for each other.

    Returns:
        One line; "" if no other process caused the error.
    """
    if is_out_of_memory(error):  # a DistBackendError as well, if NCCL has no memory
        return ""
    text = str(error)
    if not isinstance(error, torch.distributed.DistError) and not _GLOO.search(text):
        return ""
    if _TIMEOUT.search(text):
        return f"a process did not answer within {timeout:g} s: it hangs or is slow; --timeout sets a longer wait"
    return f"another process ended ({short_reason(error)}); see its own error, if it printed one"


def short_reason(error: Exception, limit: int = 120) -> str:
    """Return the first sentence of a PyTorch error, without the source file and line that raised it."""
    text = re.sub(r"^\[[^]]*:\d+\] ", "", str(error))
    return text.partition("\n")[0].partition(". ")[0][:limit]
