"""Scan shards without an index for their images and labels."""

import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from senet.data.class_names import ordered, read_class_names
from senet.data.decoding import KINDS, is_kind
from senet.data.image_files import SkippedFiles
from senet.data.shards.archives import META, Member, content_of
from senet.data.shards.index import Row, Shard, ShardIndex, make_rows
from senet.data.shards.remote import scan_url
from senet.utils.errors import DataError, shown
from senet.utils.extras import optional_import
from senet.utils.input_files import reading, reason_of, same_name
from senet.utils.limits import MOST_SHARDS
from senet.utils.progress import Progress

__all__ = ["expand", "file_of", "is_remote", "read_shards", "scan"]


def is_remote(name: str) -> bool:
    """Whether shards can only be read sequentially: from a command, or over HTTP."""
    return name.startswith(("pipe:", "http://", "https://"))


def expand(name: str) -> list[str]:
    """Expand braces: `a-{00..03}.tar`, `a-{x,y}.tar`.

    Raises:
        DataError: braces do not match, there are too many shards, or the package braceexpand is missing.
    """
    if "{" not in name:
        return [name]
    with optional_import("train", f"the shards {name!r} need braceexpand", DataError):
        from braceexpand import braceexpand
    too_many = f"{shown(name, 200)} expands to more than {MOST_SHARDS:,} shards, which is the limit; give fewer"
    # Checked before expansion: the library creates all numbers of a range first.
    for start, end, step in re.findall(r"\{([+-]?\d+)\.\.([+-]?\d+)(?:\.\.([+-]?\d+))?\}", name):
        long = max(len(start), len(end), len(step)) > 18
        if long or abs(int(end) - int(start)) >= MOST_SHARDS * max(1, abs(int(step or 1))):
            raise DataError(too_many)
    try:
        found = list(islice(braceexpand(name), MOST_SHARDS + 1))
    except Exception as error:  # nested braces are a RecursionError
        raise DataError(
            f"{shown(name, 200)} has braces that do not match ({reason_of(error)}); write {{000000..000127}}"
        ) from error
    if len(found) > MOST_SHARDS:
        raise DataError(too_many)
    return found


def file_of(shard: str) -> str:
    """Return the file name of a shard: of a path or URL, or the last word of a command."""
    return re.split(r"[/\\ ]", shard.partition("?")[0])[-1]


def read_shards(
    spec: str,
    shards: Sequence[str],
    classes: str | None,
    progress: Progress,
    name: str = "",
    checksums: bool = False,
) -> ShardIndex:
    """Index shards by reading them.

    Args:
        spec: the spec, for messages.
        shards: paths, URLs or commands.
        classes: file with one class name per line, or None.
        progress: shows progress over shards.
        name: beginning of the names of the shards.
        checksums: compute the checksums of images on disk.

    Raises:
        DataError: a shard cannot be read or has no images, an image has no label, or labels have no names.
    """
    rows: list[Row] = []
    labels: list[str] = []
    counts: list[Shard] = []
    without: list[str] = []
    found_by = partial(scan, without=without)
    for number in progress(range(len(shards)), len(shards), f"index {spec}"):
        shard = shards[number]
        found = list(scan_url(shard, found_by) if is_remote(shard) else scan_file(Path(shard), checksums, without))
        if not found:
            raise DataError(f"the shard {shard} has no images ({KINDS})")
        # Never write a command into an index.
        plain = re.fullmatch(r"\w[\w.,@=+-]*", file_of(shard))
        size = 0 if is_remote(shard) else Path(shard).stat().st_size
        counts.append(Shard(file_of(shard) if plain else f"shard-{number:06d}", len(found), size))
        rows += [row for row, _ in found]
        labels += [label for _, label in found]
    names, numbers = _classes(spec, labels, classes)
    table = make_rows(rows)
    table["label"] = numbers
    return ShardIndex(name, tuple(names), tuple(counts), table, skipped=SkippedFiles.of(without))


def _classes(spec: str, labels: list[str], file: str | None) -> tuple[list[str], list[int]]:
    """Return the class names, and the class index of each label; labels are numbers or names."""
    names = None
    if file is not None:
        names = read_class_names(file)
    if all(re.fullmatch(r"\d{1,9}", label) for label in labels):
        numbers = list(map(int, labels))
        if names is None:
            raise DataError(
                f"{spec!r} has class indices from 0 to {max(numbers)} and no class names: give classes=FILE, with one "
                f"name per line"
            )
        if max(numbers) >= len(names):
            raise DataError(f"{spec!r} has the class index {max(numbers)}, and {file} names {len(names)} classes")
        return names, numbers
    if names is None:
        names = ordered(list(set(labels)))
    index = {label: number for number, label in enumerate(names)}
    unknown = next((label for label in labels if label not in index), None)
    if unknown is not None:
        raise DataError(f"{spec!r} has a label {unknown!r} that {file} does not name")
    return names, [index[label] for label in labels]


def scan_file(path: Path, checksums: bool, without: list[str]) -> Iterator[tuple[Row, str]]:
    """Yield the images of a shard on disk, see `scan`.

    Raises:
        DataError: the shard is not a complete, uncompressed .tar, or an image has no label.
    """
    remedy = "give a complete, uncompressed .tar, or a compressed one as wds:pipe:zcat ..."
    with (
        reading(path, "shard", error=DataError, remedy=remedy),
        path.open("rb") as file,
        tarfile.open(fileobj=file, mode="r:", tarinfo=Member) as archive,
    ):
        yield from scan(archive, str(path), checksums, without)


def scan(
    archive: tarfile.TarFile, shard: str, checksums: bool, without: list[str] | None = None
) -> Iterator[tuple[Row, str]]:
    """Yield the images of an archive, each with the text of its label. Members with the same key are adjacent.

    Args:
        archive: read sequentially.
        shard: name of the shard, for messages.
        checksums: compute the checksums of the images.
        without: receives the first member of each key that has a label and no image.

    Raises:
        DataError: an image has no label, or a key has two images.
    """
    key, row, label, dotted, first = None, None, None, "", ""
    without = [] if without is None else without
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
        prefix, _, suffix = os.path.basename(member.name).partition(".")
        base, suffix = member.name[: len(member.name) - len(suffix)], suffix.lower()
        if not prefix or not suffix or META.match(member.name):
            continue
        if (member.islnk() or member.issym()) and is_kind(suffix):
            raise DataError(
                f"the image {member.name} of the shard {shard} is a link; create the .tar from the files themselves"
            )
        if not member.isreg():
            continue
        if base != key:
            if row is not None:
                yield _sample(row, label, shard)
            elif dotted:
                break
            elif label:
                without.append(f"{shard}/{first}")
            key, row, label, dotted, first = base, None, None, "", member.name
        if is_kind(suffix):
            if row is not None:
                raise DataError(f"the shard {shard} has two images with the key {prefix!r}; give each its own key")
            crc = zlib.crc32(content_of(archive, member)) if checksums else -1
            row = (os.fsencode(member.name), 0, member.offset_data, member.size, crc)
        elif suffix == "cls":
            if member.size > 1000:
                raise DataError(f"the label {member.name} of the shard {shard} has {member.size} bytes")
            label = same_name(content_of(archive, member).decode("utf-8-sig", "replace").strip())
        elif is_kind(suffix.rpartition(".")[2]):
            dotted = member.name
    if row is None and dotted:
        raise DataError(
            f"the shard {shard} has no image for the key of {dotted}: a key ends at the first dot of a name; rename "
            f"such images"
        )
    if row is not None:
        yield _sample(row, label, shard)
    elif label:
        without.append(f"{shard}/{first}")


def _sample(row: Row, label: str | None, shard: str) -> tuple[Row, str]:
    if not label:
        raise DataError(f"the image {os.fsdecode(row[0])} of the shard {shard} has no label (KEY.cls)")
    return row, label
