"""Write and read arrays with a JSON text in one safetensors file; senet 0.1's .npz archives are read too."""

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from senet.gates.recording.npz_file import is_npz, read_npz
from senet.utils.errors import GatesError
from senet.utils.files import atomic_path
from senet.utils.input_files import parse_json, reading

__all__ = ["checksum", "read_arrays", "write_arrays"]

# The metadata key of the JSON text, and the key of the array with the checksum. safetensors writes metadata keys in
# random order; with a single one, equal recordings give equal files.
_ABOUT, _CHECKSUM = "about", "sha256"
_DAMAGED = "the file is damaged, incomplete or of another kind; record the gates again, or give another file"


def write_arrays(path: str | PathLike[str], about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file atomically.

    Args:
        path: the file.
        about: a value for JSON, stored as text under the metadata key "about".
        arrays: the arrays by key.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(about)
    dense = {key: np.ascontiguousarray(array) for key, array in arrays.items()}  # safetensors ignores strides
    dense[_CHECKSUM] = checksum(text, dense)
    with atomic_path(path) as temporary:
        try:
            save_file(dense, temporary, {_ABOUT: text})
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error


def read_arrays(path: str | PathLike[str], newest: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a file of `write_arrays`, or an .npz archive of senet 0.1. No file can run code.

    Args:
        path: the file.
        newest: the newest known value of "format" in `about`.

    Returns:
        `about` and the arrays, which can be modified.

    Raises:
        GatesError: the file is missing, damaged, of another kind or of a newer format; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise GatesError(f"file not found: {path}; senet gates and senet.record_gates write recordings")
    if not path.is_file():
        raise GatesError(f"cannot read {path}: not a regular file; give a recording of senet gates")
    with reading(path, error=GatesError, message=f"cannot read {{name}} ({{reason}}): {_DAMAGED}"):
        if is_npz(path):
            about, arrays = read_npz(path)
            _check_format(about, newest, path)
        else:
            about, arrays = _read_safetensors(path, newest)
    return about, arrays


def _read_safetensors(path: Path, newest: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with safe_open(path, framework="np") as file:
        text = (file.metadata() or {}).get(_ABOUT)
        if text is None:
            raise ValueError("it is not a recording of gates")
        about = parse_json(text)
        _check_format(about, newest, path)
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    if not np.array_equal(arrays.pop(_CHECKSUM), checksum(text, arrays)):
        raise ValueError("its checksum does not match")
    return about, arrays


def checksum(text: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return (32,), the SHA-256 of the text and of keys, dtypes, shapes and bytes. safetensors has no checksum."""
    digest = hashlib.sha256(text.encode())
    for key, array in sorted(arrays.items()):
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return np.frombuffer(digest.digest(), np.uint8)


def _check_format(about: Any, newest: int, path: Path) -> None:
    found = about.get("format") if isinstance(about, dict) else None
    if type(found) is not int or found < 1:
        raise ValueError("it is not a recording of gates")
    if found > newest:
        raise GatesError(
            f"cannot read {path}: its format is {found}, and this version of senet reads up to {newest}; upgrade senet"
        )
