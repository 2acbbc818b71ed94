"""The index of shards: their contents, without reading them.

Shards `train-000000.tar`, `train-000001.tar`, ... come with `train.index.json` (classes, counts, checksums) and
`train.rows.npy` (a row for each image: name, label, position, checksum) in the same folder. Neither can run code, and
an index refers only to files of its own folder.
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

# Incremented when an older senet would misread an index.
FORMAT = 1
# Largest index and rows: 4 GiB, the rows of about fifty million images.
MOST_BYTES = 2**32

Rows = NDArray[np.void]
# Name, label, first byte in the shard, bytes, CRC-32 or -1 if unknown.
Row = tuple[bytes, int, int, int, int]


@dataclass(frozen=True)
class Shard:
    """One .tar: file name, number of images, bytes (0 if unknown) and SHA-256 ("" if unknown)."""

    file: str
    images: int
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class ShardIndex:
    """The contents of shards.

    Attributes:
        name: beginning of the names of the shards, such as "train".
        classes: class names, in the order of the class indices.
        shards: the shards, in order.
        rows: (M,), the images of all shards, in order; fields name, label, offset, size, crc.
        plan: digest of the planned contents, by which an interrupted command recognizes its shards; "" for shards of
            other programs.
        left_out: names of images of the source that could not be read.
        skipped: members of other programs' shards that have a label and no image.
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
        """(shards + 1,), the position of the first image of each shard, and M."""
        return np.concatenate(([0], np.cumsum([shard.images for shard in self.shards]))).astype(np.int64)

    def choose(self, files: Sequence[str]) -> "ShardIndex | None":
        """Return the index of some of the shards, in the order given; None if one of them is unknown.

        Args:
            files: file names of the shards.

        Raises:
            DataError: a shard is given twice.
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
        """Write the rows, then the index, which refers to them. Return the path of the index.

        Raises:
            OSError: a file cannot be written.
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
    """Return the name of the index file of shards."""
    return f"{name}.index.json"


def rows_file(name: str) -> str:
    """Return the name of the file with a row for each image."""
    return f"{name}.rows.npy"


def make_rows(rows: Sequence[Row]) -> Rows:
    """Return an array (M,) of rows; the name field has the width of the longest name."""
    width = max((len(row[0]) for row in rows), default=1)
    fields = [("name", f"S{width}"), ("label", "<i4"), ("offset", "<i8"), ("size", "<i8"), ("crc", "<i8")]
    return np.array(rows, dtype=fields)


def parse_index(text: bytes, table: bytes, where: str) -> ShardIndex:
    """Parse an index from the contents of its two files.

    Args:
        text: content of the index.
        table: content of the rows.
        where: path or URL of the index, for messages.

    Raises:
        DataError: the index is damaged, of a newer senet, does not match its rows, or refers to other folders.
    """
    remedy = "copy it and its rows again from the source of the shards, or write it again with senet shard"
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
            name=str(found["name"]),
            classes=tuple(map(str, found["classes"])),
            shards=shards,
            rows=rows,
            plan=str(found["plan"]),
            left_out=tuple(map(str, found["left_out"])),
            # Missing in indexes of version 0.1.
            skipped=SkippedFiles(int(skipped.get("count", 0)), tuple(map(str, skipped.get("examples", ())))),
        )
        _check(index)
        return index


def read_index(path: Path) -> ShardIndex:
    """Read an index and its rows from disk.

    Raises:
        DataError: see `parse_index`; or a file is missing or has more than `MOST_BYTES` bytes.
    """
    rows = path.with_name(rows_file(path.name.removesuffix(index_file(""))))
    contents = [read_bytes(file, "index", MOST_BYTES, error=DataError) for file in (path, rows)]
    return parse_index(contents[0], contents[1], str(path))


def _check(index: ShardIndex) -> None:
    """Check an index, which may come from an untrusted source.

    Raises:
        ValueError: the index is invalid.
    """
    fields: Any = index.rows.dtype.fields or {}
    kinds = {"label": "<i4", "offset": "<i8", "size": "<i8", "crc": "<i8"}
    same = tuple(fields) == ("name", *kinds) and all(fields[key][0] == kind for key, kind in kinds.items())
    if not same or fields["name"][0].kind != "S" or index.rows.ndim != 1:
        raise ValueError("its rows have other fields")
    if not index.shards or not index.classes or len(index.rows) != index.starts[-1] or len(index.rows) == 0:
        raise ValueError(f"its shards have {index.starts[-1]} images, and its rows are {len(index.rows)}")
    # An untrusted index must not refer to another folder, another host, or a command.
    outside = next((s.file for s in index.shards if not re.fullmatch(r"[^./\\:|][^/\\:|\x00-\x1f]*", s.file)), None)
    if outside is not None:
        raise ValueError(f"it names {outside!r}, which is not a file in its folder")
    if len({shard.file for shard in index.shards}) < len(index.shards):
        raise ValueError("it names a shard twice")
    labels = index.labels
    if labels.min() < 0 or labels.max() >= len(index.classes):
        raise ValueError(f"it has {len(index.classes)} classes, and labels from {labels.min()} to {labels.max()}")
    limits = np.repeat([s.bytes or 2**62 for s in index.shards], [s.images for s in index.shards])
    offsets, sizes = index.rows["offset"], index.rows["size"]
    if offsets.min() < 0 or sizes.min() < 0 or (sizes > limits - offsets).any():
        raise ValueError("an image lies outside of its shard")
