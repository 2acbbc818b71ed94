"""Write a data set as WebDataset shards. An interrupted command resumes, and writes the same bytes.

In short::

    plan = order of the images, images per shard           # known before anything is read
    for each shard, in several processes:
        exists with the recorded checksum -> keep it
        else read, decode (to verify), write KEY.jpg and KEY.cls; flush, rename, read back, write a record
    index = all records

Encoded images are copied byte for byte. Images that exist as pixels only are stored as PNG, which is lossless.
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
from senet.data.multi_label import MultiLabelData
from senet.data.shards.index import Rows, Shard, ShardIndex, index_file, make_rows, read_index
from senet.data.shards.remote import RemoteShards
from senet.data.shards.shard_files import ShardFiles, encoded, sha256_of
from senet.utils.errors import DataError
from senet.utils.files import atomic_path
from senet.utils.limits import MOST_PROCESSES, MOST_SHARDS, check_at_most
from senet.utils.progress import Progress, no_progress
from senet.utils.worker_errors import is_worker_exit

__all__ = ["WriteResult", "damaged_shards", "is_own", "write_shards"]

# Default size of a shard in bytes, and minimum number of shards.
_SHARD_BYTES, _LEAST_SHARDS = 100_000_000, 8
_MOST_MEGABYTES = 1e9
# Number of images from which the mean size is estimated.
_SAMPLE = 256
# Seconds to wait for a folder: workers of a killed command run for a moment longer.
_LOCK_TIMEOUT = 8.0


@dataclass(frozen=True)
class WriteResult:
    """The result of `write_shards`.

    Attributes:
        index: index of all shards.
        path: path of the index.
        kept: number of intact shards that existed already.
        repaired: names of damaged shards that were written again.
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
) -> WriteResult:
    """Write shards `NAME-000000.tar`, ... and their index; resume an interrupted call.

    Args:
        data: the images.
        folder: created if necessary; may contain other shards.
        name: beginning of the names of the shards.
        images_per_shard: number of images per shard; the last shard may have fewer.
        megabytes: approximate size of a shard, instead of `images_per_shard`. By default 100 MB, or less to have 8
            shards.
        keep_order: keep the order of the data; otherwise the order is random and fixed, which streaming needs for
            training.
        skip_bad: skip unreadable images.
        jobs: number of processes.
        progress: shows progress over shards.

    Raises:
        ValueError: a size or the number of processes is invalid; or `keep_order` is missing for images that can only be
            read in order.
        DataError: an image has several labels or none, or cannot be read; the folder contains other shards, or another
            process writes to it; or a shard does not read back as written.
        OSError: the disk is full, or the folder is not writable.
    """
    if isinstance(data, MultiLabelData):
        raise DataError(f"{data.spec} has images with several labels or none, and shards store one class for each")
    if images_per_shard is not None and megabytes is not None:
        raise ValueError("give images per shard or megabytes, not both")
    sizes = (images_per_shard is None or images_per_shard > 0) and (
        megabytes is None or 0 < megabytes < _MOST_MEGABYTES
    )
    if jobs < 1 or not sizes:
        raise ValueError(
            f"jobs and images per shard must be 1 or more, and megabytes above 0 and below {_MOST_MEGABYTES:g}; got "
            f"{jobs}, {images_per_shard} and {megabytes}"
        )
    check_at_most("jobs", jobs, MOST_PROCESSES)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"the name of shards must consist of letters, digits, '-', '_' and '.', got {name!r}")
    if isinstance(data.source, RemoteShards) and not keep_order:
        raise ValueError(
            f"{data.spec} can only be read in order; a random order would read a shard from the beginning for each "
            f"image: give --keep-order (keep_order=True), or copy the shards to the disk"
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


def _write(shards: "ShardFiles", plan: str, jobs: int, progress: Progress) -> WriteResult:
    folder, name = shards.folder, shards.name
    with atomic_path(folder / f".{name}.plan") as temporary:
        temporary.write_text(plan, encoding="utf-8")
    workers = min(jobs, len(shards)) if jobs > 1 else 0
    # The default generator is the global one, which training draws from.
    generator = torch.Generator()
    notes = iter(DataLoader(shards, batch_size=None, num_workers=workers, collate_fn=_identity, generator=generator))
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
        name=name,
        classes=tuple(shards.data.classes),
        shards=tuple(Shard(note["file"], len(note["rows"]), note["bytes"], note["sha256"]) for note in found),
        rows=make_rows(rows),
        plan=plan,
        left_out=tuple(bad for note in found for bad in note["left_out"]),
    )
    path = index.write(folder)
    for note in found:
        (folder / f".{note['file']}.json").unlink(missing_ok=True)
    (folder / f".{name}.plan").unlink(missing_ok=True)
    repaired = tuple(note["file"] for note in found if note["state"] == "repaired")
    return WriteResult(index, path, sum(note["state"] == "kept" for note in found), repaired)


def damaged_shards(
    folder: str | os.PathLike[str], name: str, *, progress: Progress = no_progress
) -> tuple[ShardIndex, list[str]]:
    """Verify shards. Return the index, and a message for each damaged shard.

    Raises:
        DataError: the index is missing or damaged.
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
    """Return what is wrong with a shard, or ""; without a checksum of the shard, its images are checked."""
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
                return f"the index has no checksum of {name}; write it again with senet shard --index-only"
            if zlib.crc32(content) != row["crc"]:
                return f"the checksum of {name} is wrong"
    return ""


def is_own(folder: Path, name: str) -> bool:
    """Whether a folder contains the index of shards that `write_shards` wrote."""
    return (folder / index_file(name)).exists() and bool(read_index(folder / index_file(name)).plan)


def _per_shard(data: ImageData, megabytes: float | None) -> int:
    """Return the number of images per shard, from the sizes of some images; the same in every call."""
    sizes = []
    if isinstance(data.source, RemoteShards):  # the index has the sizes; reading the last image would read all
        sizes = [float(np.mean(data.source.rows["size"][data.indices])) + 1536]
    for index in np.linspace(0, len(data) - 1, 0 if sizes else min(len(data), _SAMPLE)).astype(int).tolist():
        try:
            sizes.append(len(encoded(data, index)[0]) + 1536)  # with the headers of image and label
        except DataError:
            continue  # reported when its shard is written
    mean = sum(sizes) / max(len(sizes), 1) or 1
    if megabytes is not None:
        return max(1, round(megabytes * 1e6 / mean))
    return max(1, min(round(_SHARD_BYTES / mean), math.ceil(len(data) / _LEAST_SHARDS)))


def _digest(data: ImageData, per: int, keep_order: bool) -> str:
    """Return a digest that identifies a set of shards: names and labels of the images, and their distribution."""
    digest = hashlib.sha256(json.dumps([1, per, keep_order, data.classes]).encode())
    for index, label in enumerate(data.labels.tolist()):
        digest.update(f"{Path(data.name(index)).name}\0{label}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Lock the folder, and remove incomplete files of a killed command.

    Raises:
        DataError: another process writes to the folder.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", thread_local=False)
    try:
        lock.acquire(timeout=_LOCK_TIMEOUT, poll_interval=0.2)
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
    """Return the records of an earlier call from its index, by file name.

    Raises:
        DataError: the folder contains other shards.
    """
    remedy = f"choose another folder, or remove {folder / name}-*.tar, {folder / name}.* and {folder}/.{name}*"
    if (folder / index_file(name)).exists():
        index = read_index(folder / index_file(name))
        if index.plan != plan:
            raise DataError(
                f"the folder {folder} is in use: it holds other shards named {name!r}, or the same images distributed "
                f"differently ({len(index.rows):,} images in {len(index.shards)}); {remedy}"
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
        what = "a part of other shards" if stray is None or begun else f"{stray.name}, which has no index"
        raise DataError(f"the folder {folder} is in use: it holds {what}; {remedy}")
    return {}


def _identity(note: Any) -> Any:
    return note
