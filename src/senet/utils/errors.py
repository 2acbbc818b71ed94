"""What senet raises beside ValueError and TypeError, and how errors are put into a line."""

from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike
from typing import ClassVar

__all__ = [
    "CaptureError",
    "DataError",
    "DataWarning",
    "FileError",
    "FolderInUseError",
    "GatesError",
    "ModelFileError",
    "NonFiniteError",
    "NonFiniteGatesError",
    "ReportedByPeerError",
    "SenetError",
    "TrainingError",
    "first_line",
    "not_scriptable",
    "shown",
    "unknown_name",
]


class SenetError(Exception):
    """Base of senet's own exceptions: the message names what is wrong and what to do about it.

    Attributes:
        exit_status: of a command that ends with this error: 2 for invalid usage or input, found before work starts.
    """

    exit_status: ClassVar[int] = 2


class CaptureError(SenetError, RuntimeError):
    """A step cannot be captured in a CUDA graph. Nothing has changed; it can be run without one.

    Args:
        reason: in one line, such as "operation not permitted when stream is capturing".

    Attributes:
        reason: as given.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the step cannot be captured in a CUDA graph: {reason}")
        self.reason = reason


class DataError(SenetError, ValueError):
    """A data set cannot be used as it is: missing, empty, unreadable, or with classes that do not fit."""


class FileError(SenetError, ValueError):
    """A recipe, study, report or other text file cannot be read: missing, too large, damaged or of another kind."""


class FolderInUseError(SenetError, ValueError):
    """Another process is writing to a run's folder. Nothing has changed; the run can start once that process has ended.

    Args:
        folder: of the run.

    Attributes:
        folder: as given.
        exit_status: EX_TEMPFAIL of sysexits.h: the same command can succeed later. A study recognises it, and waits.
    """

    exit_status = 75

    def __init__(self, folder: str | PathLike[str]) -> None:
        super().__init__(f"another run is writing to {folder}: wait for it, or choose another folder")
        self.folder = folder

    def __reduce__(self) -> tuple[type["FolderInUseError"], tuple[str | PathLike[str]]]:
        return type(self), (self.folder,)


class GatesError(SenetError, ValueError):
    """Gates cannot be recorded, read, merged or folded: no SE, values that are not finite, a broken or another file."""


class ModelFileError(SenetError, ValueError):
    """A file cannot be loaded as a network or as weights, or a network cannot be saved as one."""


class NonFiniteError(SenetError, RuntimeError):
    """Evaluation, prediction or a recording met NaN or infinity; the message names the image."""

    exit_status = 1


class NonFiniteGatesError(GatesError, NonFiniteError):
    """Gates, or the logits of a network with other gates, are NaN or infinite; the message names the image."""


class ReportedByPeerError(SenetError):
    """One of several processes failed, and another one reports the error: this process ends without a message.

    Args:
        error: the error that the other process reports.

    Attributes:
        error: as given.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error

    def __reduce__(self) -> tuple[type["ReportedByPeerError"], tuple[Exception]]:
        return type(self), (self.error,)


class TrainingError(SenetError, RuntimeError):
    """A run failed after it had started; what it had saved is intact."""

    exit_status = 1


class DataWarning(UserWarning):
    """A data set can be used, but perhaps not as intended: files were skipped, or an order was assumed."""


def first_line(error: Exception) -> str:
    """What an error of somebody else's says, in a line: its first, or the name of its class where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def not_scriptable(module: object) -> TypeError:
    """The error for `torch.jit.script` of a module, whose compiler would fail at an annotation without a remedy."""
    return TypeError(
        f"torch.jit.script cannot compile {type(module).__name__}, whose forward chooses by shapes, modes and hooks in "
        f"Python; use torch.jit.trace(model.eval(), example), torch.export.export or torch.compile"
    )


def shown(value: object, most: int = 60) -> str:
    """A value for a message, shortened: it may come from a file and be of any size or depth."""
    if isinstance(value, int) and abs(value) >= 10**most:
        return f"a number of {value.bit_length()} bits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits in a list; lists a thousand deep
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """The message for a name that does not exist, with the nearest one that does.

    Args:
        what: what the name is of, such as "gate"; ends up before the name.
        name: the name as it was given.
        known: every name that exists.
    """
    names = list(known)
    by_lower = {known_name.lower(): known_name for known_name in names}
    near = get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    hint = f"; did you mean {by_lower[near[0]]!r}?" if near else "."
    # A short list is the remedy itself; a long one (hundreds of networks) would bury the hint.
    choices = f" Choose from: {', '.join(names)}." if 0 < len(names) <= 24 else ""
    return f"unknown {what} {shown(name, 200)}{hint}{choices}"
