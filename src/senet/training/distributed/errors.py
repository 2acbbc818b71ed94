"""Report each error once across processes."""

import re
from dataclasses import dataclass

import torch

from senet.utils.errors import TrainingError
from senet.utils.memory_errors import is_out_of_memory

__all__ = ["PeerLostError", "Reporting", "ended", "explain_loss", "is_quiet", "reporting", "shared"]

# Where an exception of any class keeps its `Reporting`.
_ATTRIBUTE = "_senet_reporting"
# Parts of PyTorch's messages, where its classes do not say enough: gloo raises a plain RuntimeError, as any operation
# of backward does, and torch.distributed's classes do not distinguish time-outs.
_TIMED_OUT = ("imed out", "imeout")
_GONE = ("onnection closed by peer", "onnection reset", "onnection refused", "roken pipe", "gloo", "NCCL")


class PeerLostError(TrainingError):
    """Another process ended, or did not answer in time."""


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Which process reports an error.

    Attributes:
        shared: all processes raise the same error.
        quiet: another process reports it.
    """

    shared: bool = False
    quiet: bool = False


def reporting(error: BaseException) -> Reporting:
    """Return which process reports an error: the one that raises it, unless `shared` or `ended` recorded otherwise."""
    found: Reporting = getattr(error, _ATTRIBUTE, Reporting())
    return found


def shared(error: Exception, rank: int) -> Exception:
    """Record that all processes raise an error, and that the first one reports it.

    Args:
        error: as this process raises it.
        rank: of this process.

    Returns:
        The same error.
    """
    vars(error)[_ATTRIBUTE] = Reporting(shared=True, quiet=rank > 0)
    return error


def ended(message: str, error: Exception, rank: int, world: int) -> TrainingError:
    """Return the error that ends a run of several processes; it names the process unless all raise the same error.

    Args:
        message: of the error.
        error: that was raised in this process.
        rank: of this process.
        world: number of processes.
    """
    alike, lost = reporting(error).shared, isinstance(error, PeerLostError)
    message = message if alike else f"process {rank} of {world}: {message}"
    end = (PeerLostError if lost else TrainingError)(message)
    # All but one may see that one is gone, and would report the same.
    vars(end)[_ATTRIBUTE] = Reporting(shared=alike, quiet=rank > 0 and (alike or (lost and rank > 1)))
    return end


def is_quiet(error: BaseException) -> bool:
    """Whether another process reports an error."""
    return reporting(error).quiet


def explain_loss(error: Exception, timeout: float) -> str:
    """Explain an error of PyTorch that another process caused.

    Args:
        error: any error of a collective, or of a step with one.
        timeout: seconds that processes wait for each other.

    Returns:
        One line; "" if the error is about something else.
    """
    if is_out_of_memory(error):  # NCCL's, too, whose message names NCCL as any other of its errors does
        return ""
    text = re.sub(r"^\[[^]]*:\d+\] ", "", str(error))  # where in PyTorch's sources it was raised
    if any(sign in text for sign in _TIMED_OUT) and "connecting" not in text:
        return (
            f"a process did not answer within {timeout:g} s: it hangs, or is slower than that, and --timeout gives it "
            f"longer"
        )
    if isinstance(error, torch.distributed.DistError) or any(sign in text for sign in _GONE):
        reason = text.splitlines()[0].partition(". ")[0][:120]
        return f"another process is gone ({reason}); it tells why, if it could"
    return ""
