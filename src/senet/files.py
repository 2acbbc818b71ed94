"""Files that are whole or not there: written under a temporary name, flushed to disk, renamed."""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["atomic_path", "sweep", "write_json", "write_safetensors"]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` to write to, which takes its name when the block ends without an error.

    Raises:
        OSError: the folder is missing, read-only or full; what stood at `path` is as it was.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    # The same suffix, since writers such as matplotlib choose the format by it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are the owner's alone
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a full disk, that of a write
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """After a loss of power, too, the new name is to be there."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:  # nor do some network file systems flush them
        pass
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove temporary files that a process left in a folder when it was killed; nobody else may be writing there."""
    for path in folder.iterdir():
        if re.fullmatch(r"\.\w+-[a-z0-9_]{8}\.\w+", path.name):
            path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """One JSON value, as a file that is whole."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_safetensors(tensors: Mapping[str, "Tensor"], path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    """Write tensors to a file of safetensors.

    Args:
        tensors: by name, without gaps in memory.
        path: of the file.
        metadata: text that stands beside them.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error
