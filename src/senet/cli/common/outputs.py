"""Check the output options of commands before work starts."""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from senet.cli.common.user_code import file_of
from senet.utils.files import check_folder, check_output

if TYPE_CHECKING:
    from senet.data import ImageData

__all__ = ["MODEL", "check_file_option", "check_folder_option", "data_files"]

# Suffixes that a model file must not have. Any other suffix is accepted; the content is safetensors.
MODEL = (
    *(".pth", ".pt", ".th", ".pkl", ".bin", ".ckpt", ".onnx", ".caffemodel", ".npz", ".npy", ".toml", ".json", ".md"),
    ".py",
    *(".txt", ".html", ".pdf", ".csv", ".tar", ".zip", ".gz", ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif"),
)


# Suffixes of the lists that a folder of data has, one for each split.
_LISTS = (".csv", ".parquet", ".json")


def check_file_option(
    option: str,
    path: str | None,
    *,
    suffixes: Sequence[str] = (),
    not_suffixes: Sequence[str] = (),
    inputs: Iterable[str | Path | None] = (),
) -> None:
    """Check that an option's file can be written.

    Args:
        option: name of the option on the command line.
        path: value of the option; None is accepted.
        suffixes: allowed suffixes; empty allows any.
        not_suffixes: forbidden suffixes.
        inputs: files that the command reads and must not overwrite.

    Raises:
        ValueError: the file cannot be written, has a wrong suffix, or is an input.
    """
    if path is None:
        return
    _check_name(option, path)
    suffix = Path(path).suffix.lower()
    if suffixes and suffix not in suffixes:
        raise ValueError(f"invalid {option} {path!r}: the name must end in {_either(suffixes)}")
    if suffix in not_suffixes:
        raise ValueError(f"invalid {option} {path!r}: the name of a model file must end in .safetensors")
    _check(option, path, check_output)
    for source in inputs:
        if source is not None and _is_same(path, source):
            raise ValueError(f"{option} {path!r} is also an input, which would be overwritten; choose another name")


def data_files(data: "ImageData") -> list[str]:
    """Return the files of data that an output must not overwrite: the images, and the list that names them.

    Args:
        data: opened data; names of images that are no files, such as members of an archive, match no output.
    """
    from senet.data.images import options_of

    name = os.path.expanduser(options_of(data.spec)[0])
    lists = [os.path.join(name, f"{split}{suffix}") for split in ("train", "val") for suffix in _LISTS] if name else []
    return [name, *lists, *(data.name(index) for index in range(len(data)))]


def check_folder_option(option: str, path: str | None, inputs: Iterable[str | Path | None] = ()) -> None:
    """Check that an option's folder can be written to.

    Args:
        option: name of the option on the command line.
        path: value of the option; None is accepted.
        inputs: folders that the command reads, or data specs.

    Raises:
        ValueError: the folder cannot be created or written to, is an input, or lies among an input's class folders.
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
                f"{option} {path!r} is among the class folders of the data {source}, and would be read as a class; "
                f"choose a folder outside"
            )


def _check_name(option: str, path: str) -> None:
    if not path.strip():
        raise ValueError(f"{option} is empty, got {path!r}; give the name of an output")
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
    """Return whether a path and an input (a path, FILE.py:FUNCTION or a data spec) are the same file or folder."""
    try:
        return os.path.samefile(path, file_of(str(source)).removeprefix("wds:"))
    except (OSError, ValueError):
        return False


def _is_among_classes(path: str, data: Path) -> bool:
    """Return whether a folder is, or is inside, a split or class folder of the data."""
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
