"""Who of several processes tells of an error: one, and not all of them."""

import re

import torch

from senet.errors import TrainingError
from senet.memory_errors import is_out_of_memory

__all__ = ["PeerLostError", "ended", "explain_loss", "is_quiet", "shared"]

_QUIET = "another process tells of it"
_SHARED = "all processes came to it alike"


class PeerLostError(TrainingError):
    """Another process ended, or did not answer in time."""


def shared(error: Exception, rank: int) -> Exception:
    """An error that all processes come to alike, as one of them raises it."""
    error.add_note(_SHARED)
    if rank > 0:
        error.add_note(_QUIET)
    return error


def ended(message: str, error: Exception, rank: int, world: int) -> TrainingError:
    """How a run of several processes ends by an error in its middle; with the process, where it is that one's."""
    alike, lost = _SHARED in getattr(error, "__notes__", ()), isinstance(error, PeerLostError)
    message = message if alike else f"process {rank} of {world}: {message}"
    end = (PeerLostError if lost else TrainingError)(message)
    # All but one may be there to see that one is gone, and would say the same.
    if rank > 0 and (alike or (lost and rank > 1)):
        end.add_note(_QUIET)
    return end


def is_quiet(error: BaseException) -> bool:
    """Whether another process tells of an error."""
    return _QUIET in getattr(error, "__notes__", ())


def explain_loss(error: Exception, timeout: float) -> str:
    """What an error of PyTorch says of the other processes, in a line; "" if it is about something else."""
    if is_out_of_memory(error):  # of NCCL, for one, which names itself as in any other error
        return ""
    text = re.sub(r"^\[[^]]*:\d+\] ", "", str(error))  # where in PyTorch's sources it was raised
    if ("imed out" in text or "imeout" in text) and "connecting" not in text:
        return (
            f"a process did not answer within {timeout:g} s: it hangs, or is slower than that, and --timeout gives it "
            f"longer"
        )
    signs = ("onnection closed by peer", "onnection reset", "onnection refused", "roken pipe", "gloo", "NCCL")
    if isinstance(error, torch.distributed.DistError) or any(sign in text for sign in signs):
        reason = text.splitlines()[0].partition(". ")[0][:120]
        return f"another process is gone ({reason}); it tells why, if it could"
    return ""
