"""Write single shards: atomically, verified, and recorded, so that a later call recognizes them."""

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from senet.data.decoding import to_rgb
from senet.data.images import ImageData, Labels, read_image, readable
from senet.data.shards.archives import Member
from senet.data.shards.scanning import scan
from senet.utils.errors import DataError, FileError
from senet.utils.extras import optional_import
from senet.utils.files import atomic_path
from senet.utils.input_files import read_json

__all__ = ["ShardFiles", "encoded", "sha256_of"]

# Formats that are stored unchanged, by Pillow's name; and the modes of PNG, to which others are converted.
_KINDS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif"}
_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


@dataclass
class ShardFiles(Dataset[dict[str, Any]]):
    """Shards by number: getting one writes it, and returns a record of its contents, or an error.

    Attributes:
        data: the images.
        folder: folder of the shards.
        name: beginning of the names of the shards.
        parts: the images of each shard.
        skip_bad: skip unreadable images.
        noted: records of existing shards, by file name.
    """

    data: ImageData
    folder: Path
    name: str
    parts: Sequence[Labels]
    skip_bad: bool
    noted: dict[str, dict[str, Any]]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> dict[str, Any]:
        file = f"{self.name}-{number:06d}.tar"
        try:
            note = self.noted.get(file) or self._note(file)
            state = "new"
            if note is not None:
                state = "kept" if self._is_whole(file, note, number) else "repaired"
            if state != "kept":
                note = self._write(file, number)
                with atomic_path(self.folder / f".{file}.json") as temporary:
                    temporary.write_text(json.dumps(note), encoding="utf-8")
            assert note is not None
            return note | {"file": file, "state": state, "left_out": self._left_out(note, number)}
        except DataError as error:
            return {"error": str(error), "is_os": False}
        except OSError as error:
            where = error.filename or self.folder / file
            return {"error": f"cannot write {where}: {error.strerror or error}", "is_os": True}

    def _note(self, file: str) -> dict[str, Any] | None:
        """Read the record that an interrupted call wrote for a shard."""
        try:
            note: dict[str, Any] = read_json(self.folder / f".{file}.json", "note")
        except FileError:
            return None
        return note

    def _is_whole(self, file: str, note: dict[str, Any], number: int) -> bool:
        """Whether a shard matches its record. A shard that lacks images does not, unless `skip_bad`."""
        path = self.folder / file
        same = path.is_file() and path.stat().st_size == note["bytes"] and sha256_of(path) == note["sha256"]
        return same and (self.skip_bad or not self._left_out(note, number)) and all(map(self._is_same, note["rows"]))

    def _is_same(self, row: list[Any]) -> bool:
        """Whether an image in a shard is still that of the source. Only encoded images are compared."""
        index = int(row[0].partition(".")[0])
        try:
            given = self.data.source.read(int(self.data.indices[index]))
        except DataError:
            return self.skip_bad
        if isinstance(given, Image.Image):
            return True
        with closing(given):
            content = given.read()
        became_png = row[0].endswith(".png") and not content.startswith(b"\x89PNG")
        return became_png or zlib.crc32(content) == row[4]

    def _left_out(self, note: dict[str, Any], number: int) -> list[str]:
        there = {int(row[0].partition(".")[0]) for row in note["rows"]}
        return [self.data.name(index) for index in self.parts[number].tolist() if index not in there]

    def _write(self, file: str, number: int) -> dict[str, Any]:
        with optional_import("train", "writing shards needs webdataset", DataError):
            from webdataset import TarWriter
        # For worker processes only: the command itself may outlive the shell that started it.
        path, parent = self.folder / file, os.getppid() if get_worker_info() else None
        with atomic_path(path) as temporary:
            with temporary.open("wb") as raw:
                hashed = _HashingFile(raw)
                with TarWriter(hashed, encoder=False, mtime=0) as writer:
                    for index in self.parts[number].tolist():
                        if parent is not None and os.getppid() != parent:
                            os._exit(1)  # the command was killed, and may have been started again
                        try:
                            content, kind = encoded(self.data, index)
                        except DataError as error:
                            if self.skip_bad:
                                continue
                            raise DataError(f"{error}; leave such images out with --skip-bad") from error
                        label = b"%d" % self.data.labels[index]
                        writer.write({"__key__": f"{index:08d}", kind: content, "cls": label})
            if sha256_of(temporary) != hashed.digest.hexdigest():
                raise DataError(f"the shard {path} does not read back as written: the disk may be failing")
            with tarfile.open(temporary, mode="r:", tarinfo=Member) as archive:
                rows = [[os.fsdecode(row[0]), int(label), *row[2:]] for row, label in scan(archive, str(path), True)]
            return {"rows": rows, "bytes": temporary.stat().st_size, "sha256": hashed.digest.hexdigest()}


def encoded(data: ImageData, index: int) -> tuple[bytes, str]:
    """Return an image as an encoded file, and its extension: unchanged from the source, or converted to PNG.

    Raises:
        DataError: the image cannot be decoded; the message names it.
    """
    name = data.name(index)
    given = data.source.read(int(data.indices[index]))
    if isinstance(given, Image.Image):
        return _png(given, name), "png"
    with readable(name), closing(given):
        content = given.read()
    image = read_image(io.BytesIO(content), name)
    with readable(name):
        to_rgb(image)
    kind = _KINDS.get(image.format or "")
    return (content, kind) if kind else (_png(image, name), "png")


def _png(image: Image.Image, name: str) -> bytes:
    file = io.BytesIO()
    with readable(name):
        (image if image.mode in _MODES else to_rgb(image)).save(file, "PNG")
    return file.getvalue()


class _HashingFile:
    """A file that computes the checksum of what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self._file.write(content)


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
