"""Write output files atomically: complete or not at all.

senet writes all files through `atomic_path`. A regular file is written under a temporary name, flushed to disk and
renamed. A symbolic link is kept; its target is replaced. A character device or named pipe (/dev/null, /dev/stdout,
`>(command)`) is written to directly, since renaming would destroy it.
"""

import errno
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "atomic_path",
    "check_folder",
    "check_output",
    "restored_on_error",
    "sweep",
    "sweep_stale",
    "write_json",
    "write_safetensors",
]

# Most symbolic links followed from a path to its file, as in Linux.
_MOST_LINKS = 40
# Bytes of a file name that all common file systems accept.
_LONGEST_NAME = 255


def check_output(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written to a path, before the work that produces it.

    Raises:
        OSError: the path is empty, a folder, a block device or a socket; its folder is missing or not writable; or its
            symbolic links form a loop.
    """
    _destination(path)


def _destination(path: str | os.PathLike[str]) -> tuple[Path, bool]:
    """Return the file behind a path's symbolic links, and whether to write to it directly instead of replacing it."""
    name, given = os.fspath(path), Path(path)
    _check_name(name, "file to write")
    target, through_proc = _followed(given)
    try:
        mode = os.stat(given).st_mode  # of the file itself: links in /proc may be dangling
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode) or name.endswith(os.sep):
        raise IsADirectoryError(f"{given} is a folder; give the name of a file to write")
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or through_proc:
        return given, True
    if not stat.S_ISREG(mode):
        kind = "block device" if stat.S_ISBLK(mode) else "socket"
        raise OSError(f"cannot write to {given}: it is a {kind}; give the name of a file to write")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} to; make it first")
    _check_writable(target.parent)
    return target, False


def _check_name(name: str, what: str) -> None:
    if not name.strip():
        raise FileNotFoundError(f"the name of the {what} is empty, got {name!r}; give a name")
    if "\0" in name:
        raise OSError(f"invalid file name {name!r}: it contains a null byte")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Check that a folder can be written to or created, before the work that fills it.

    Raises:
        OSError: the path is empty, too long, not a folder, inside a file, or not writable.
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
        kind = "a broken link" if above.is_symlink() and not above.exists() else "not a folder"
        raise NotADirectoryError(f"cannot write to folder {folder}: {above} is {kind}; choose another folder")
    _check_writable(above)


def _check_writable(folder: Path) -> None:
    if os.access(folder, os.W_OK | os.X_OK):
        return
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, "Read-only file system", str(folder))
    raise PermissionError(f"no permission to write to folder {folder}; choose another folder")


def _followed(path: Path) -> tuple[Path, bool]:
    """Follow symbolic links; also return whether one is a process's open file, such as /dev/stdout."""
    through_proc = False
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            return path, through_proc
        through_proc = through_proc or str(path.absolute()).startswith("/proc/")
        path = path.parent / os.readlink(path)
    raise OSError(f"the symbolic links at {path} form a loop; remove them, or give another file")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path, which replaces `path` if the block ends without an error.

    Raises:
        OSError: as `check_output`, or the disk is full; the file at `path` is unchanged.
    """
    target, through = _destination(path)
    # The same suffix, by which writers such as matplotlib choose the format; short enough for a file name.
    folder = None if through else target.parent
    prefix, suffix = _affixes(target)
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
    except OSError as error:  # a folder that holds no files, such as /proc
        raise OSError(error.errno, error.strerror, str(path)) from error
    temporary = Path(name)
    locked = _lock(handle)
    if not locked:
        os.close(handle)
    try:
        yield temporary
        if through:
            _write_through(temporary, target)
        else:
            _replace(temporary, target)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # such as a full disk
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        if locked:
            os.close(handle)
        temporary.unlink(missing_ok=True)


@contextmanager
def restored_on_error(*paths: str | os.PathLike[str]) -> Iterator[None]:
    """Restore files if the block raises: those that exist now are put back, others removed.

    The block replaces them, as `atomic_path` does, and writes to none in place: their content is kept by hard links in
    the same folder, or in copies where the file system has no links.
    """
    kept: dict[Path, Path | None] = {}
    try:
        for path in paths:
            target, through = _destination(path)
            if not through:
                kept[target] = _linked(target) if target.exists() else None
        yield
    except BaseException:
        for target, link in kept.items():
            target.unlink(missing_ok=True) if link is None else link.replace(target)
        raise
    finally:
        for link in filter(None, kept.values()):
            link.unlink(missing_ok=True)


def _linked(target: Path) -> Path:
    """Return a temporary file with the content of a file."""
    prefix, suffix = _affixes(target)
    link = target.with_name(f"{prefix}{secrets.token_hex(4)}{suffix}")
    try:
        os.link(target, link)
    except OSError:  # some file systems have no links
        shutil.copy2(target, link)
    return link


def _affixes(target: Path) -> tuple[str, str]:
    """Return what the names of a file's temporary files begin and end with."""
    return f".{target.stem[:30]}-", target.suffix[:20]


def _lock(handle: int) -> bool:
    """Lock an open file until it is closed, and return whether no other process had locked it."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows, file systems without locks, or locked
        return False
    return True


def _replace(temporary: Path, target: Path) -> None:
    """Rename a temporary file over a file, keeping the permissions of the latter."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    umask = os.umask(0)
    os.umask(umask)
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~umask
    temporary.chmod(mode)  # mkstemp's files are private
    temporary.replace(target)
    _flush_folder(target.parent)


def _write_through(temporary: Path, target: Path) -> None:
    """Copy a temporary file into a device, a pipe or an open file.

    A pipe without a reader raises an error instead of blocking for ever.
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
    """Flush a folder, so that a rename survives power loss."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems cannot flush folders
        pass
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder, to which no other process is writing."""
    for path in folder.iterdir():
        if re.fullmatch(r"\.\w+-[a-z0-9_]{8}\.\w+", path.name):
            path.unlink(missing_ok=True)


def sweep_stale(path: str | os.PathLike[str], with_suffix: str = "") -> None:
    """Remove the temporary files of a path that killed processes left; those of running processes are locked.

    Args:
        path: as for `atomic_path`.
        with_suffix: of a temporary file with the same name, whose lock is for both.

    Raises:
        OSError: see `check_output`.
    """
    target, through = _destination(path)
    if through:
        return
    prefix, suffix = map(re.escape, _affixes(target))
    for one in target.parent.iterdir():
        if not re.fullmatch(rf"{prefix}[a-z0-9_]{{8}}{suffix}", one.name) or _is_locked(one):
            continue
        if not with_suffix or not _is_locked(one.with_suffix(with_suffix)):
            one.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    """Return whether another process has locked a file, or may have."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not _lock(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value to a file."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_safetensors(tensors: Mapping[str, "Tensor"], path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    """Write tensors to a safetensors file.

    Args:
        tensors: contiguous tensors by name.
        path: path of the file.
        metadata: text stored in the file's header.

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
