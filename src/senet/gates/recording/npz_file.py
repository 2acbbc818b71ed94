"""Read the .npz archives in which senet 0.1 stored recordings."""

import zipfile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from senet.utils.input_files import array_of, parse_json

__all__ = ["is_npz", "read_npz"]

_ABOUT = "about"


def is_npz(path: Path) -> bool:
    """Return whether a file begins as a zip archive does."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_npz(path: Path) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Read an archive without pickles. The arrays take no more memory than the file's size.

    Returns:
        The value of the JSON text in the array "about", and the other arrays by key.

    Raises:
        Exception: any error of zipfile, NumPy or JSON; call this inside `senet.utils.input_files.reading`.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename.removesuffix(".npy") for entry in entries]
        # Compressed entries could expand without bound, and entries that overlap could add up to more than the file.
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size or _ABOUT not in names:
            raise ValueError("it is not a recording of gates")
        arrays = {name: array_of(archive.read(entry)) for name, entry in zip(names, entries, strict=True)}
    return parse_json(arrays.pop(_ABOUT).tobytes()), arrays
