"""Arrays and a JSON text in one .npz file, read without trust: no pickles, nothing larger than the file itself."""

import json
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.utils.errors import GatesError
from senet.utils.files import atomic_path
from senet.utils.input_files import array_of, parse_json, reading

__all__ = ["read_arrays", "write_arrays"]

_TEXT = "about"
_BROKEN = "it is broken, cut short or something else; record the gates anew, or give another file"


def write_arrays(path: str | PathLike[str], about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file of `numpy.savez`, without compression, atomically.

    Args:
        path: of the file.
        about: what JSON can hold; stored as the array "about", the bytes of the text in UTF-8.
        arrays: by key.

    Raises:
        OSError: the file cannot be written.
    """
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_TEXT: text}, **dict(arrays))


def read_arrays(path: str | PathLike[str], number: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read such a file; each array is the caller's own.

    Args:
        path: of the file.
        number: the highest "format" of `about` that is known.

    Raises:
        GatesError: the file is missing, broken, foreign or of a newer format; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise GatesError(f"there is no file {path}; senet gates and senet.record_gates write such")
    if not path.is_file():
        raise GatesError(f"cannot read {path}: it is no regular file; give a file of senet gates")
    with (
        reading(path, error=GatesError, message=f"cannot read {{name}} ({{reason}}): {_BROKEN}"),
        path.open("rb") as file,
        zipfile.ZipFile(file) as archive,
    ):
        entries = archive.infolist()
        names = [entry.filename.removesuffix(".npy") for entry in entries]
        # What is stored as it is cannot swell, and entries that share their bytes would be larger than the file.
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size or _TEXT not in names:
            raise ValueError("it is no recording of gates")
        about = parse_json(array_of(archive.read(f"{_TEXT}.npy")).tobytes())
        _check_format(about, number, path)
        arrays = {name: array_of(archive.read(entry)) for name, entry in zip(names, entries, strict=True)}
    del arrays[_TEXT]
    return about, arrays


def _check_format(about: Any, number: int, path: Path) -> None:
    found = about.get("format") if isinstance(about, dict) else None
    if type(found) is not int or found < 1:
        raise ValueError("it is no recording of gates")
    if found > number:
        raise GatesError(
            f"cannot read {path}: it has format {found}, and this senet knows up to {number}; install a newer senet"
        )
