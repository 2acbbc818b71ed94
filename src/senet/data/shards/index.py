"""The index beside shards: what is in them, so that nobody has to read them to know.

Shards called `train-000000.tar`, `train-000001.tar`, ... have `train.index.json` (classes, counts, checksums) and
`train.rows.npy` (a row for each image: name, label, where it lies, checksum) beside them. Neither can run code, and an
index names files of its own folder alone.
"""

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.data.image_files import NONE_SKIPPED, SkippedFiles
from senet.data.images import Labels
from senet.utils.errors import DataError
from senet.utils.files import atomic_path
from senet.utils.input_files import array_of, parse_json, read_bytes, reading
from senet.version import __version__

__all__ = [
    "Row",
    "Rows",
    "Shard",
    "ShardIndex",
    "index_file",
    "make_rows",
    "parse_index",
    "read_index",
    "rows_file",
]

# Rises when an index could be read wrongly by an older senet.
FORMAT = 1
# Of an index and of its rows: 4 GiB, the rows of some fifty million images.
MOST_BYTES = 2**32

Rows = NDArray[np.void]
# Name, label, first byte in the shard, bytes, CRC-32 or -1 where it is not known.
Row = tuple[bytes, int, int, int, int]


@dataclass(frozen=True)
class Shard:
    """One .tar: its file's name, images, bytes and checksum; the last two are 0 and "" where they are not known."""

    file: str
    images: int
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class ShardIndex:
    """What is in some shards.

    Attributes:
        name: what the shards' names begin with, such as "train".
        classes: names, in the order of the class indices.
        shards: in order.
        rows: (M,), the images of all shards, in order; fields name, label, offset, size, crc.
        plan: digest of what was to be written, by which an interrupted command knows its own; "" of others' shards.
        left_out: names of images of the source that could not be read.
        skipped: members of others' shards that have a label and are no images.
    """

    name: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    rows: Rows
    plan: str = ""
    left_out: tuple[str, ...] = ()
    skipped: SkippedFiles = NONE_SKIPPED

    @property
    def labels(self) -> Labels:
        """(M,), class indices."""
        return self.rows["label"].astype(np.int64)

    @property
    def starts(self) -> Labels:
        """(shards + 1,), the first image of each shard, and M."""
        return np.concatenate(([0], np.cumsum([shard.images for shard in self.shards]))).astype(np.int64)

    def choose(self, files: Sequence[str]) -> "ShardIndex | None":
        """The index of some of the shards, in the order given; None if it does not know one of them.

        Raises:
            DataError: one is given twice.
        """
        known = {shard.file: number for number, shard in enumerate(self.shards)}
        if not all(file in known for file in files):
            return None
        if len(set(files)) < len(files):
            raise DataError(f"the shard {Counter(files).most_common(1)[0][0]} is given twice; give each once")
        numbers, starts = [known[file] for file in files], self.starts
        rows = [self.rows[starts[number] : starts[number + 1]] for number in numbers]
        return replace(self, shards=tuple(self.shards[n] for n in numbers), rows=np.concatenate(rows))

    def write(self, folder: Path) -> Path:
        """Write both files, the one that names the other last.

        Raises:
            OSError: they cannot be written.
        """
        table = io.BytesIO()
        np.save(table, self.rows, allow_pickle=False)
        with atomic_path(folder / rows_file(self.name)) as temporary:
            temporary.write_bytes(table.getvalue())
        counts = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        index = {
            "format": FORMAT,
            "senet": __version__,
            "name": self.name,
            "images": len(self.rows),
            "classes": list(self.classes),
            "images of each class": counts,
            "shards": [asdict(shard) for shard in self.shards],
            "rows": {"file": rows_file(self.name), "sha256": hashlib.sha256(table.getvalue()).hexdigest()},
            "plan": self.plan,
            "left_out": list(self.left_out),
            "skipped": asdict(self.skipped),
        }
        path = folder / index_file(self.name)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        return path


def index_file(name: str) -> str:
    """The index's file of shards called so."""
    return f"{name}.index.json"


def rows_file(name: str) -> str:
    """The file with a row for each image."""
    return f"{name}.rows.npy"


def make_rows(rows: Sequence[Row]) -> Rows:
    """(M,) rows of images; as wide as the longest name needs."""
    width = max((len(row[0]) for row in rows), default=1)
    fields = [("name", f"S{width}"), ("label", "<i4"), ("offset", "<i8"), ("size", "<i8"), ("crc", "<i8")]
    return np.array(rows, dtype=fields)


def parse_index(text: bytes, table: bytes, where: str) -> ShardIndex:
    """An index from the contents of its two files.

    Raises:
        DataError: it is damaged, of a newer senet, does not fit its rows, or names files elsewhere.
    """
    remedy = "copy it and its rows anew from where the shards come from, or make it anew with senet shard"
    with reading(where, "index", error=DataError, remedy=remedy):
        found: dict[str, Any] = parse_json(text)
        if int(found["format"]) > FORMAT:
            raise DataError(f"the index {where} is of senet {found.get('senet')}: upgrade senet to read it")
        if hashlib.sha256(table).hexdigest() != found["rows"]["sha256"]:
            raise ValueError(f"the checksum of {rows_file(str(found['name']))} is wrong")
        rows, skipped = array_of(table), found.get("skipped", {})
        shards = tuple(
            Shard(str(one["file"]), int(one["images"]), int(one["bytes"]), str(one["sha256"]))
            for one in found["shards"]
        )
        index = ShardIndex(
            str(found["name"]),
            tuple(map(str, found["classes"])),
            shards,
            rows,
            str(found["plan"]),
            tuple(map(str, found["left_out"])),
            # Indexes of version 0.1 do not say it.
            SkippedFiles(int(skipped.get("count", 0)), tuple(map(str, skipped.get("examples", ())))),
        )
        _check(index)
        return index


def read_index(path: Path) -> ShardIndex:
    """An index and its rows from the disk.

    Raises:
        DataError: as `parse_index`, or a file is missing or has more than `MOST_BYTES` bytes.
    """
    rows = path.with_name(rows_file(path.name.removesuffix(index_file(""))))
    contents = [read_bytes(file, "index", MOST_BYTES, error=DataError) for file in (path, rows)]
    return parse_index(contents[0], contents[1], str(path))


def _check(index: ShardIndex) -> None:
    """A ValueError if an index cannot be: it may come from a stranger."""
    fields: Any = index.rows.dtype.fields or {}
    kinds = {"label": "<i4", "offset": "<i8", "size": "<i8", "crc": "<i8"}
    same = tuple(fields) == ("name", *kinds) and all(fields[key][0] == kind for key, kind in kinds.items())
    if not same or fields["name"][0].kind != "S" or index.rows.ndim != 1:
        raise ValueError("its rows have other fields")
    if not index.shards or not index.classes or len(index.rows) != index.starts[-1] or len(index.rows) == 0:
        raise ValueError(f"its shards have {index.starts[-1]} images, and its rows are {len(index.rows)}")
    # A stranger's index is not to reach out of its folder, to another host, or to a command.
    outside = next((s.file for s in index.shards if not re.fullmatch(r"[^./\\:|][^/\\:|\x00-\x1f]*", s.file)), None)
    if outside is not None:
        raise ValueError(f"it names {outside!r}, which is no file beside it")
    if len({shard.file for shard in index.shards}) < len(index.shards):
        raise ValueError("it names a shard twice")
    labels = index.labels
    if labels.min() < 0 or labels.max() >= len(index.classes):
        raise ValueError(f"it has {len(index.classes)} classes, and labels from {labels.min()} to {labels.max()}")
    limits = np.repeat([s.bytes or 2**62 for s in index.shards], [s.images for s in index.shards])
    offsets, sizes = index.rows["offset"], index.rows["size"]
    if offsets.min() < 0 or sizes.min() < 0 or (sizes > limits - offsets).any():
        raise ValueError("an image lies outside of its shard")
