"""Formats, precisions and dynamic axes: what `senet.export` supports, and the reason for what it does not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from numbers import Real
from os import PathLike, fspath
from pathlib import Path
from typing import get_args

from senet.utils.arguments import argument_name
from senet.utils.choices import ExportAxis, ExportFormat, Precision, check_choice
from senet.utils.errors import unknown_name
from senet.utils.extras import install_command, optional_import

__all__ = [
    "FORMATS",
    "TOLERANCES",
    "Format",
    "check_dynamic",
    "check_precision",
    "check_tolerance",
    "format_of",
    "require_packages",
]


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
        suffix: of its files.
        engine: the program that runs it, for messages.
        rejected: precisions that are not supported, and the reason.
    """

    suffix: str
    engine: str
    rejected: dict[Precision, str]


FORMATS: dict[ExportFormat, Format] = {
    "onnx": Format(
        ".onnx",
        "ONNX Runtime",
        {"bf16": "ONNX Runtime has no bfloat16 convolutions on a CPU; export fp16, or the format torch"},
    ),
    "openvino": Format(
        ".xml",
        "OpenVINO",
        {
            "bf16": "OpenVINO itself computes in bfloat16 where the CPU can (INFERENCE_PRECISION_HINT); export fp16 "
            "for files of half the size"
        },
    ),
    "torch": Format(
        ".pt2",
        "PyTorch",
        {"int8": "PyTorch's quantization has moved to torchao, which senet does not require; export onnx or openvino"},
    ),
}

# Largest accepted difference from PyTorch in float32, relative to the largest output.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.1, "int8": 0.5}


def format_of(path: str | PathLike[str], format: ExportFormat | None) -> ExportFormat:
    """Return the format of a file to write, by its suffix if none is given.

    Raises:
        ValueError: an unknown format, or a suffix that is not the format's.
    """
    suffix = Path(path).suffix.lower()
    by_suffix: dict[str, ExportFormat] = {row.suffix: name for name, row in FORMATS.items()}
    if format is None:
        if suffix not in by_suffix:
            known = ", ".join(f"{row.suffix} ({name})" for name, row in FORMATS.items())
            raise ValueError(f"the format of {fspath(path)!r} is not known by its suffix: expected one of {known}")
        return by_suffix[suffix]
    check_choice("format", format, ExportFormat)
    if suffix != FORMATS[format].suffix:
        raise ValueError(
            f"a file of format {format} must end in {FORMATS[format].suffix}, got {fspath(path)!r}; "
            f"{FORMATS[format].engine} recognizes it by that"
        )
    return format


def check_precision(format: ExportFormat, precision: Precision) -> None:
    """Check that a format supports a precision.

    Raises:
        ValueError: it does not; the message says why.
    """
    check_choice("precision", precision, Precision)
    reason = FORMATS[format].rejected.get(precision)
    if reason is not None:
        raise ValueError(f"precision {precision!r} is not available in format {format}: {reason}")


def check_dynamic(dynamic: Sequence[ExportAxis]) -> None:
    """Check the names of dynamic axes.

    Raises:
        TypeError: a single string, or no list.
        ValueError: an unknown name.
    """
    if isinstance(dynamic, str):
        raise TypeError(f"dynamic must be a list of axes, got {dynamic!r}; put it in a list")
    if not isinstance(dynamic, Iterable):
        raise TypeError(f"dynamic must be a list of axes, got {dynamic!r}; () for none")
    for axis in dynamic:
        if axis not in get_args(ExportAxis):
            raise ValueError(unknown_name("dynamic axis", axis, get_args(ExportAxis)))


def check_tolerance(tolerance: float | None) -> None:
    """Check a tolerance.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative or NaN.
    """
    if tolerance is not None and (isinstance(tolerance, bool) or not isinstance(tolerance, Real)):
        raise TypeError(f"{argument_name('tolerance')} must be a number, got {tolerance!r}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(
            f"{argument_name('tolerance')} must be 0 or more, relative to the largest output, got {tolerance}"
        )


def require_packages(format: ExportFormat, precision: Precision) -> None:
    """Check that the packages of a format are installed.

    Raises:
        ImportError: one is missing; the message has the command that installs it.
    """
    if format == "onnx":
        with optional_import("deploy", "format onnx requires onnx, onnxruntime and onnxscript", ImportError):
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401  torch.onnx imports it
    elif format == "openvino":
        with optional_import("deploy", "format openvino requires openvino", ImportError):
            import openvino  # noqa: F401
    if format == "openvino" and precision == "int8" and find_spec("nncf") is None:  # its import writes a log
        raise ImportError(f"precision int8 in format openvino requires nncf: {install_command('deploy')}")
