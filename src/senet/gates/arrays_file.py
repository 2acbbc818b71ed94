"""Arrays and a JSON text in one .npz file, read without trust: no pickles, nothing larger than the file itself."""

import io
import json
import zipfile
from collections.abc import Mapping
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.errors import GatesError, first_line
from senet.files import atomic_path

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
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename.removesuffix(".npy") for entry in entries]
            # What is stored as it is cannot swell, and entries that share their bytes would be larger than the file.
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size or _TEXT not in names:
                raise ValueError("it is no recording of gates")
            about = json.loads(_array(archive.read(f"{_TEXT}.npy")).tobytes())
            _check_format(about, number)
            arrays = {name: _array(archive.read(entry)) for name, entry in zip(names, entries, strict=True)}
    except FileNotFoundError:
        raise GatesError(f"there is no file {path}; senet gates and senet.record_gates write such") from None
    except GatesError as error:
        raise GatesError(f"cannot read {path}: {error}") from None
    except OSError as error:
        raise GatesError(f"cannot read {path}: {error.strerror or error}; see that it can be read") from error
    # What zipfile, json and numpy raise on bytes that are not theirs.
    except Exception as error:
        raise GatesError(f"cannot read {path} ({first_line(error)}): {_BROKEN}") from error
    del arrays[_TEXT]
    return about, arrays


def _check_format(about: Any, number: int) -> None:
    found = about.get("format") if isinstance(about, dict) else None
    if not isinstance(found, int) or found < 1:
        raise ValueError("it is no recording of gates")
    if found > number:
        raise GatesError(f"it has format {found}, and this senet knows up to {number}; install a newer senet")


def _array(data: bytes) -> NDArray[Any]:
    """An array of a file of `numpy.save`, whose size must be what its header says."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    rest = data[file.tell() :]
    if dtype.hasobject or any(n < 0 for n in shape) or prod(shape) * dtype.itemsize != len(rest):
        raise ValueError("an array is not of its size")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C").copy()
