"""Outputs of commands, checked before any work: the one place where a command learns that it could not write."""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from senet.utils.files import check_folder, check_output

__all__ = ["MODEL", "check_file_option", "check_folder_option"]

# Suffixes of other kinds of files than model files, which are those of safetensors under any other name.
MODEL = (
    *(".pth", ".pt", ".th", ".pkl", ".bin", ".ckpt", ".onnx", ".caffemodel", ".npz", ".npy", ".toml", ".json", ".md"),
    *(".txt", ".html", ".pdf", ".csv", ".tar", ".zip", ".gz", ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif"),
)


def check_file_option(
    option: str,
    path: str | None,
    *,
    suffixes: Sequence[str] = (),
    not_suffixes: Sequence[str] = (),
    inputs: Iterable[str | Path | None] = (),
) -> None:
    """Check the file that an option names for writing.

    Args:
        option: as on the command line.
        path: the option's value; None is fine.
        suffixes: that say what is written; any where there are none.
        not_suffixes: that would say something else.
        inputs: files that the command reads, and that stay as they are.

    Raises:
        ValueError: the file cannot be written, has another suffix, or is an input; the message names the option.
    """
    if path is None:
        return
    _check_name(option, path)
    suffix = Path(path).suffix.lower()
    if suffixes and suffix not in suffixes:
        raise ValueError(f"{option} must end in {_either(suffixes)}, which is what is written; got {path!r}")
    if suffix in not_suffixes:
        raise ValueError(f"{option} must end in .safetensors, since a model file is written; got {path!r}")
    _check(option, path, check_output)
    for source in inputs:
        if source is not None and _is_same(path, source):
            raise ValueError(f"{option} {path!r} is also an input, which would be lost; choose another name")


def check_folder_option(option: str, path: str | None, inputs: Iterable[str | Path | None] = ()) -> None:
    """Check the folder that an option names for writing.

    Args:
        option: as on the command line.
        path: the option's value; None is fine.
        inputs: folders that the command reads, or specs of data.

    Raises:
        ValueError: the folder cannot be made or written to, is an input, or lies where an input has its classes; the
            message names the option.
    """
    if path is None:
        return
    _check_name(option, path)
    _check(option, path, check_folder)
    for source in inputs:
        if source is not None and _is_same(path, source):
            raise ValueError(f"{option} {path!r} is also the data; choose another folder for the results")
        if source is not None and _is_among_classes(path, Path(source)):
            raise ValueError(
                f"{option} {path!r} lies among the class folders of the data {source}, and would be taken for one; "
                f"choose a folder outside"
            )


def _check_name(option: str, path: str) -> None:
    if not path.strip():
        raise ValueError(f"{option} is empty, got {path!r}; give the name of what is to be written")
    if path.startswith("-"):
        raise ValueError(f"{option} {path!r} looks like an option; write ./{path} if that is its name")


def _check(option: str, path: str, check: Callable[[str], None]) -> None:
    try:
        check(path)
    except OSError as error:
        remedy = "choose a shorter name" if error.errno == errno.ENAMETOOLONG else "choose another one"
        message = f"{error.strerror}: {path}; {remedy}" if error.strerror else str(error)
        raise ValueError(f"{option}: {message}") from error


def _is_same(path: str, source: str | Path) -> bool:
    """Whether a path and an input, which may be a spec of data, are one file or folder."""
    try:
        return os.path.samefile(path, str(source).removeprefix("wds:"))
    except (OSError, ValueError):
        return False


def _is_among_classes(path: str, data: Path) -> bool:
    """Whether a folder is, or lies in, what a folder of data has for a split or a class."""
    from senet.data.specs import SPLITS

    try:
        if not data.is_dir():
            return False
        splits = [data / name for name in SPLITS if (data / name).is_dir()]
        real = Path(path).resolve()
        return any(real.is_relative_to(folder.resolve()) for folder in splits or [data])
    except (OSError, ValueError):
        return False


def _either(suffixes: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
