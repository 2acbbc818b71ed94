"""senet's exception classes, and helpers for error messages."""

from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike
from typing import ClassVar

__all__ = [
    "CaptureError",
    "DataError",
    "DataWarning",
    "ExportError",
    "FileError",
    "FolderInUseError",
    "GatesError",
    "MissingExampleError",
    "ModelFileError",
    "NonFiniteError",
    "NonFiniteGatesError",
    "PeerLostError",
    "ReportedByPeerError",
    "RewriteError",
    "SenetError",
    "TrainingError",
    "UnreadableImageError",
    "first_line",
    "not_scriptable",
    "shown",
    "unknown_name",
]


class SenetError(Exception):
    """Base of senet's own exceptions: the message names what is wrong and what to do about it.

    Attributes:
        exit_status: of a command that ends with this error: 2 for invalid usage or input, found before work starts.

    Examples:
        >>> try:
        ...     senet.open_data("nowhere")
        ... except senet.SenetError as error:
        ...     print(type(error).__name__)
        DataError
    """

    exit_status: ClassVar[int] = 2


class CaptureError(SenetError, RuntimeError):
    """A step cannot be captured in a CUDA graph. Nothing was changed; the step can run without one.

    Args:
        reason: in one line, such as "operation not permitted when stream is capturing".

    Attributes:
        reason: as given.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the step cannot be captured in a CUDA graph: {reason}")
        self.reason = reason


class DataError(SenetError, ValueError):
    """A data set cannot be used: it is missing, empty, unreadable, or has the wrong classes.

    Examples:
        >>> try:
        ...     senet.open_data("photos/none")
        ... except senet.DataError as error:
        ...     print(str(error).partition(";")[0])
        the data 'photos/none' does not exist
    """


class ExportError(SenetError, RuntimeError):
    """A network cannot be exported, or the exported file does not compute the same. No file is written.

    Examples:
        >>> model = senet.create_model("se_resnet20").eval()
        >>> try:
        ...     senet.export(model, "model.pt2", tolerance=1e-12)
        ... except senet.ExportError as error:
        ...     print("not exported")
        not exported
    """

    exit_status = 1


class FileError(SenetError, ValueError):
    """A recipe, study, report or other text file cannot be read: missing, too large, damaged or of another type."""


class FolderInUseError(SenetError, ValueError):
    """Another process is writing to a run's folder. Nothing was changed; the run can start when that process ends.

    Args:
        folder: the run's folder.

    Attributes:
        folder: as given.
        exit_status: EX_TEMPFAIL of sysexits.h: the same command can succeed later. A study recognizes it, and waits.
    """

    exit_status = 75

    def __init__(self, folder: str | PathLike[str]) -> None:
        super().__init__(f"another run is writing to {folder}: wait for it, or choose another folder")
        self.folder = folder

    def __reduce__(self) -> tuple[type["FolderInUseError"], tuple[str | PathLike[str]]]:
        return type(self), (self.folder,)


class GatesError(SenetError, ValueError):
    """Gates cannot be recorded, read, merged or folded: no SE, non-finite values, a damaged or unrelated file.

    Examples:
        >>> try:
        ...     senet.record_gates(senet.create_model("resnet20", num_classes=2), "photos")
        ... except senet.GatesError as error:
        ...     print(error)
        ResNet has no SE; add it with senet.insert, or give another network
    """


class MissingExampleError(SenetError, ValueError):
    """Sites, channels or stages are known from a run only, and the network runs on no made-up input: give `example`."""


class ModelFileError(SenetError, ValueError):
    """A file cannot be loaded as a network or as weights, or a network cannot be saved.

    Examples:
        >>> try:
        ...     senet.load("none.safetensors")
        ... except senet.ModelFileError as error:
        ...     print(error)
        no file at none.safetensors
    """


class NonFiniteError(SenetError, RuntimeError):
    """Evaluation, prediction or recording found NaN or infinity. The message names the image.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> _ = nn.init.constant_(model.fc.weight, float("nan"))
        >>> try:
        ...     senet.evaluate(model, "photos")
        ... except senet.NonFiniteError as error:
        ...     print(str(error).partition(":")[0])
        the logits of photos/val/cat/0.png (batch 1) are not finite (nan)
    """

    exit_status = 1


class NonFiniteGatesError(GatesError, NonFiniteError):
    """Gates, or logits under modified gates, are NaN or infinite. The message names the image."""


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


class RewriteError(SenetError, ValueError):
    """A network cannot be rewritten exactly for inference. It is unchanged."""


class TrainingError(SenetError, RuntimeError):
    """A run failed after it started. Its saved files are intact.

    Examples:
        >>> recipe = senet.load_recipe("digits", ["epochs=1", "batch=4", "workers=0", "lr=1e30"])
        >>> try:
        ...     senet.train("resnet20", "photos", recipe, "runs/new")
        ... except senet.TrainingError as error:
        ...     print(str(error).partition(",")[0])
        the loss is nan at step 2 of epoch 1
    """

    exit_status = 1


class PeerLostError(TrainingError):
    """Another process of a run ended, or did not answer in time."""


class UnreadableImageError(DataError):
    """An image cannot be read.

    Args:
        name: name of the image, such as its file.
        reason: why, and what to do about it.

    Attributes:
        name, reason: as given.
    """

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"cannot read the image {name}: {reason}")
        self.name, self.reason = str(name), reason

    def __reduce__(self) -> tuple[type["UnreadableImageError"], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class DataWarning(UserWarning):
    """A data set is usable, but perhaps not as intended: files were skipped, or an order was assumed.

    Examples:
        >>> import warnings
        >>> warnings.simplefilter("ignore", senet.DataWarning)  # do not report skipped files
    """


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, or the name of its class if the message is empty."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def not_scriptable(module: object) -> TypeError:
    """Return the error for `torch.jit.script` of a module. Its own error names an annotation and no remedy."""
    return TypeError(
        f"torch.jit.script cannot compile {type(module).__name__}, whose forward branches on shapes, modes and hooks; "
        f"use torch.jit.trace(model.eval(), example), torch.export.export or torch.compile"
    )


def shown(value: object, most: int = 60) -> str:
    """Return a shortened repr of a value for a message. A value from a file may have any size or depth."""
    if isinstance(value, int) and abs(value) >= 10**most:
        return f"a number of {value.bit_length()} bits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits in a list; lists a thousand deep
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the closest match.

    Args:
        what: what is named, such as "gate".
        name: the given name.
        known: all valid names.
    """
    names = list(known)
    by_lower = {known_name.lower(): known_name for known_name in names}
    near = get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    hint = f"; did you mean {by_lower[near[0]]!r}?" if near else "."
    # A long list (hundreds of networks) would bury the suggestion.
    choices = f" Choose from: {', '.join(names)}." if 0 < len(names) <= 24 else ""
    return f"unknown {what} {shown(name, 200)}{hint}{choices}"
