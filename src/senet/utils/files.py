"""Output files: whole or not there, whatever the path is.

Everything that senet writes goes through `atomic_path`. A regular file is written under a temporary name, flushed to
disk and renamed. A symbolic link stays, and the file that it points to is replaced. A character device or a named pipe
(/dev/null, /dev/stdout, `>(command)`) is written through: renaming over it would destroy it.
"""

import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["atomic_path", "check_folder", "check_output", "sweep", "write_json", "write_safetensors"]

# Links that are followed from a path to its file; Linux follows as many.
_MOST_LINKS = 40
# Bytes of a file's name that every file system of note takes.
_LONGEST_NAME = 255


def check_output(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written to a path, before the work whose result it is to hold.

    Raises:
        OSError: the path is empty, a folder, a block device or a socket; its folder is missing or cannot be written to;
            its links lead in a circle. The message names the path and the remedy.
    """
    _destination(path)


def _destination(path: str | os.PathLike[str]) -> tuple[Path, bool]:
    """The file behind a path's links, and whether it is written through instead of replaced."""
    name, given = os.fspath(path), Path(path)
    _check_name(name, "file to write")
    target, through_proc = _followed(given)
    try:
        mode = os.stat(given).st_mode  # of the file itself: those in /proc have links that lead nowhere
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode) or name.endswith(os.sep):
        raise IsADirectoryError(f"{given} is a folder; give the name of a file to write")
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or through_proc:
        return given, True
    if not stat.S_ISREG(mode):
        kind = "block device" if stat.S_ISBLK(mode) else "socket"
        raise OSError(f"{given} is a {kind}, which is never written to; give the name of a file to write")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} to; make it first")
    _check_writable(target.parent)
    return target, False


def _check_name(name: str, what: str) -> None:
    if not name.strip():
        raise FileNotFoundError(f"the name of the {what} is empty, got {name!r}; give one")
    if "\0" in name:
        raise OSError(f"{name!r} has a null byte, which no file name may have; leave it out")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Check that a folder can be written to or made, before the work whose results it is to hold.

    Raises:
        OSError: the path is empty, too long or not a folder, is below a file, or cannot be written to. The message
            names the path and the remedy.
    """
    name, folder = os.fspath(path), Path(path)
    _check_name(name, "folder to write to")
    for one in (folder, *folder.parents):
        if len(os.fsencode(one.name)) > _LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, "File name too long", name)
    above = next((one for one in (folder, *folder.absolute().parents) if os.path.lexists(one)), Path("/"))
    if above.is_file():
        below = f"{folder} would be below it; choose another folder" if above != folder.absolute() else "give a folder"
        raise NotADirectoryError(f"{above} is a file; {below}")
    if not above.is_dir():
        kind = "a link that leads nowhere" if above.is_symlink() and not above.exists() else "not a folder"
        raise NotADirectoryError(f"cannot write to the folder {folder}: {above} is {kind}; choose another one")
    _check_writable(above)


def _check_writable(folder: Path) -> None:
    if os.access(folder, os.W_OK | os.X_OK):
        return
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, "Read-only file system", str(folder))
    raise PermissionError(f"no permission to write to the folder {folder}; choose another one")


def _followed(path: Path) -> tuple[Path, bool]:
    """The path behind symbolic links, and whether one is an open file of a process, such as /dev/stdout."""
    through_proc = False
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            return path, through_proc
        through_proc = through_proc or str(path.absolute()).startswith("/proc/")
        path = path.parent / os.readlink(path)
    raise OSError(f"the links at {path} lead in a circle; remove them, or give another file")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to, whose content is at `path` once the block has ended without an error.

    Raises:
        OSError: as `check_output`, or the disk is full; what stood at `path` is as it was.
    """
    target, through = _destination(path)
    # The same suffix, since writers such as matplotlib choose the format by it; and no longer than a name may be.
    folder = None if through else target.parent
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{target.stem[:30]}-", suffix=target.suffix[:20])
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if through:
            _write_through(temporary, target)
        else:
            _replace(temporary, target)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a full disk, that of a write
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _replace(temporary: Path, target: Path) -> None:
    """Give a temporary file the name of a file, and the permissions that the file had."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    umask = os.umask(0)
    os.umask(umask)
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~umask
    temporary.chmod(mode)  # mkstemp's files are the owner's alone
    temporary.replace(target)
    _flush_folder(target.parent)


def _write_through(temporary: Path, target: Path) -> None:
    """Copy a temporary file into a device, a pipe or an open file, which stays what it is.

    A pipe that nobody reads is an error instead of a wait without end.
    """
    flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(target, flags)
    except OSError as error:
        reason = "no process reads it" if error.errno == errno.ENXIO else error.strerror
        raise OSError(f"cannot write to {target}: {reason}; give the name of a file") from error
    os.set_blocking(handle, True)
    with temporary.open("rb") as source, open(handle, "wb") as file:
        shutil.copyfileobj(source, file)


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
