"""Write a data set as WebDataset's shards, so that the same command comes to the same bytes however often it is killed.

In short::

    plan = order of the images, images in a shard          # known before anything is read
    for each shard, in several processes:
        there already, with the checksum that was noted -> keep it
        else read, decode (to see that it can be), write KEY.jpg and KEY.cls; flush, rename, read back, note
    index = all notes

An encoded image stays as it is, to the byte. Images that exist as pixels only become PNG, which loses nothing.
"""

import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from senet.data.images import ImageData
from senet.data.shards.files import ShardFiles, encoded, sha256_of
from senet.data.shards.index import Rows, Shard, ShardIndex, index_file, make_rows, read_index
from senet.data.shards.remote import RemoteShards
from senet.utils.errors import DataError
from senet.utils.files import atomic_path
from senet.utils.limits import MOST_PROCESSES, MOST_SHARDS, check_at_most
from senet.utils.progress import Progress, no_progress
from senet.utils.worker_errors import is_worker_exit

__all__ = ["Written", "damaged_shards", "is_own", "write_shards"]

# Bytes of images in a shard, unless a size is given; and shards that there are at least.
_BYTES, _LEAST = 100_000_000, 8
_MOST = 1e9  # megabytes
# Images whose sizes stand for those of all.
_SAMPLE = 256
# Seconds to wait for a folder: the processes of a command that was killed go on for a moment.
_PATIENCE = 8.0


@dataclass(frozen=True)
class Written:
    """What `write_shards` did.

    Attributes:
        index: of all shards.
        path: of the index.
        kept: shards that were there already, and whole.
        repaired: names of shards that were there, and damaged.
    """

    index: ShardIndex
    path: Path
    kept: int
    repaired: tuple[str, ...]


def write_shards(
    data: ImageData,
    folder: str | os.PathLike[str],
    name: str = "images",
    *,
    images_per_shard: int | None = None,
    megabytes: float | None = None,
    keep_order: bool = False,
    skip_bad: bool = False,
    jobs: int = 1,
    progress: Progress = no_progress,
) -> Written:
    """Write shards `NAME-000000.tar`, ... and their index; go on where a call that was killed had come to.

    Args:
        data: the images.
        folder: is made if need be; other shards may be in it.
        name: what the shards' names begin with.
        images_per_shard: how many; the last shard has fewer.
        megabytes: about how large a shard is instead. Of neither, 100 MB, or an eighth of the images if that is less.
        keep_order: as the data have it; otherwise one fixed random order, which streams of shards need for training.
        skip_bad: leave out images that cannot be read.
        jobs: processes.
        progress: shows progress.

    Raises:
        ValueError: a size or a number of processes that cannot be; or images that can only be read in their order are
            to have another.
        DataError: an image cannot be read; the folder holds other shards, or another process writes to it; a shard that
            was written does not read back as it was.
        OSError: the disk is full, or the folder cannot be written to.
    """
    if images_per_shard is not None and megabytes is not None:
        raise ValueError("give images per shard or megabytes, not both")
    sizes = (images_per_shard is None or images_per_shard > 0) and (megabytes is None or 0 < megabytes < _MOST)
    if jobs < 1 or not sizes:
        raise ValueError(
            f"jobs and images per shard must be 1 or more, and megabytes above 0 and below {_MOST:g}; got {jobs}, "
            f"{images_per_shard} and {megabytes}"
        )
    check_at_most("jobs", jobs, MOST_PROCESSES)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"the name of shards must be of letters, digits, '-', '_' and '.', got {name!r}")
    if isinstance(data.source, RemoteShards) and not keep_order:
        raise ValueError(
            f"{data.spec} can only be read in its order, and anything else takes its shards from their beginning for "
            f"each image: give --keep-order (keep_order=True), or copy the shards to the disk"
        )
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; give a folder for the shards")
    per = images_per_shard or _per_shard(data, megabytes)
    check_at_most("the number of shards", math.ceil(len(data) / per), MOST_SHARDS, "put more images into each")
    order = np.arange(len(data)) if keep_order else np.random.default_rng(0).permutation(len(data))
    plan = _digest(data, per, keep_order)
    with _locked(folder, name):
        ours = _check_folder(folder, name, plan)
        shards = ShardFiles(data, folder, name, np.array_split(order, range(per, len(order), per)), skip_bad, ours)
        return _write(shards, plan, jobs, progress)


def _write(shards: "ShardFiles", plan: str, jobs: int, progress: Progress) -> Written:
    folder, name = shards.folder, shards.name
    with atomic_path(folder / f".{name}.plan") as temporary:
        temporary.write_text(plan, encoding="utf-8")
    workers = min(jobs, len(shards)) if jobs > 1 else 0
    # A generator of its own: otherwise this would move the one that training draws from.
    own = torch.Generator()
    notes = iter(DataLoader(shards, batch_size=None, num_workers=workers, collate_fn=_same, generator=own))
    found: list[dict[str, Any]] = []
    for _ in progress(range(len(shards)), len(shards), f"write {folder / name}"):
        try:
            note = next(notes)
        except RuntimeError as error:
            if not is_worker_exit(error):
                raise
            raise DataError(f"a process that writes shards died: {str(error).splitlines()[0]}") from error
        if "error" in note:
            raise (OSError if note["is_os"] else DataError)(note["error"])
        found.append(note)
    rows = [(os.fsencode(row[0]), *row[1:]) for note in found for row in note["rows"]]
    if not rows:
        raise DataError(f"{shards.data.spec} has no readable image")
    index = ShardIndex(
        name,
        tuple(shards.data.classes),
        tuple(Shard(note["file"], len(note["rows"]), note["bytes"], note["sha256"]) for note in found),
        make_rows(rows),
        plan,
        tuple(bad for note in found for bad in note["left_out"]),
    )
    path = index.write(folder)
    for note in found:
        (folder / f".{note['file']}.json").unlink(missing_ok=True)
    (folder / f".{name}.plan").unlink(missing_ok=True)
    repaired = tuple(note["file"] for note in found if note["state"] == "repaired")
    return Written(index, path, sum(note["state"] == "kept" for note in found), repaired)


def damaged_shards(
    folder: str | os.PathLike[str], name: str, *, progress: Progress = no_progress
) -> tuple[ShardIndex, list[str]]:
    """Read shards back: the index, and what is wrong with each shard that does not have its checksum.

    Raises:
        DataError: there is no index, or it is damaged.
    """
    folder = Path(folder)
    index = read_index(folder / index_file(name))
    wrong = []
    for number in progress(range(len(index.shards)), len(index.shards), f"verify {folder / name}"):
        shard = index.shards[number]
        path = folder / shard.file
        try:
            why = _damage(path, shard, index.rows[index.starts[number] : index.starts[number + 1]])
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            wrong.append(f"{path}: {why}")
    return index, wrong


def _damage(path: Path, shard: Shard, rows: Rows) -> str:
    """What is wrong with a shard; of one that others made, with its images."""
    size = path.stat().st_size
    if shard.bytes and size != shard.bytes:
        return f"it has {size:,} bytes instead of {shard.bytes:,}"
    if shard.sha256:
        return "" if sha256_of(path) == shard.sha256 else "its checksum is wrong"
    with path.open("rb") as file:
        for row in rows:
            file.seek(int(row["offset"]))
            name, content = os.fsdecode(row["name"]), file.read(int(row["size"]))
            if row["crc"] < 0:
                return f"the index has no checksum of {name}; make it anew with senet shard --index-only"
            if zlib.crc32(content) != row["crc"]:
                return f"the checksum of {name} is wrong"
    return ""


def is_own(folder: Path, name: str) -> bool:
    """Whether a folder has the index of shards that `write_shards` wrote."""
    return (folder / index_file(name)).exists() and bool(read_index(folder / index_file(name)).plan)


def _per_shard(data: ImageData, megabytes: float | None) -> int:
    """Images in a shard of about so many bytes, from the sizes of some images; the same at every call."""
    sizes = []
    if isinstance(data.source, RemoteShards):  # which says them, and reads all to come to the last
        sizes = [float(np.mean(data.source.rows["size"][data.indices])) + 1536]
    for index in np.linspace(0, len(data) - 1, 0 if sizes else min(len(data), _SAMPLE)).astype(int).tolist():
        try:
            sizes.append(len(encoded(data, index)[0]) + 1536)  # and the headers of image and label
        except DataError:
            continue  # it is told of in its turn
    mean = sum(sizes) / max(len(sizes), 1) or 1
    if megabytes is not None:
        return max(1, round(megabytes * 1e6 / mean))
    return max(1, min(round(_BYTES / mean), math.ceil(len(data) / _LEAST)))


def _digest(data: ImageData, per: int, keep_order: bool) -> str:
    """Tells one set of shards from another: by names and labels of the images, and how they are laid out."""
    digest = hashlib.sha256(json.dumps([1, per, keep_order, data.classes]).encode())
    for index, label in enumerate(data.labels.tolist()):
        digest.update(f"{Path(data.name(index)).name}\0{label}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """The folder is this process's alone, and clear of what one that was killed left half written."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", thread_local=False)
    try:
        lock.acquire(timeout=_PATIENCE, poll_interval=0.2)
    except Timeout as error:
        raise DataError(f"another process is writing to {folder}: wait for it, or choose another folder") from error
    try:
        for path in folder.glob(f".{name}[.-]*"):
            if re.search(r"-[a-z0-9_]{8}\.\w+$", path.name):
                path.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _check_folder(folder: Path, name: str, plan: str) -> dict[str, dict[str, Any]]:
    """What the index of an earlier call notes of its shards, by file; a DataError if the folder holds others."""
    remedy = f"choose another folder, or remove {folder / name}-*.tar, {folder / name}.* and {folder}/.{name}*"
    if (folder / index_file(name)).exists():
        index = read_index(folder / index_file(name))
        if index.plan != plan:
            raise DataError(
                f"the folder {folder} is in use: it holds other shards called {name!r}, or the same images laid out "
                f"otherwise ({len(index.rows):,} images in {len(index.shards)}); {remedy}"
            )
        starts = index.starts.tolist()
        rows = [[os.fsdecode(row[0]), *row[1:]] for row in index.rows.tolist()]
        return {
            shard.file: {"rows": rows[start : start + shard.images], "bytes": shard.bytes, "sha256": shard.sha256}
            for shard, start in zip(index.shards, starts, strict=False)
        }
    marker = folder / f".{name}.plan"
    begun = marker.read_text(encoding="utf-8") if marker.exists() else ""
    stray = next(folder.glob(f"{name}-*.tar"), None)
    if begun != plan and (begun or stray is not None):
        what = "the beginning of other shards" if stray is None or begun else f"{stray.name}, which has no index"
        raise DataError(f"the folder {folder} is in use: it holds {what}; {remedy}")
    return {}


def _same(note: Any) -> Any:
    return note
