"""Open WebDataset shards: `wds:...`.

A shard is a .tar with `KEY.jpg` (or another image) and `KEY.cls` for each image. Local shards are read in any order:
the index, or the headers of the archive, hold the position of each image. Shards from a command or over HTTP are read
sequentially, see `senet.data.shards.remote` and `senet.data.loading.streaming`.
"""

import io
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from senet.data.images import ImageData, options_of, readable
from senet.data.shards.index import ShardIndex, index_file, parse_index, read_index, rows_file
from senet.data.shards.remote import RemoteShards, read_url
from senet.data.shards.scanning import expand, file_of, is_remote, read_shards
from senet.utils.errors import DataError, UnreadableImageError, unknown_name
from senet.utils.progress import Progress

__all__ = ["LocalShards", "index_names", "index_spec", "open_shards"]

_OPTIONS = ("classes", "index", "streams")


class LocalShards:
    """Images in archives on disk. No file stays open, so processes can share the object.

    Args:
        paths: paths of the shards.
        index: index of these shards.
    """

    def __init__(self, paths: Sequence[Path], index: ShardIndex) -> None:
        self._paths = [str(path) for path in paths]
        self._rows = index.rows
        self._shard = np.repeat(np.arange(len(paths)), [shard.images for shard in index.shards])
        self._offset, self._size, self._crc = (index.rows[field].copy() for field in ("offset", "size", "crc"))

    def read(self, index: int) -> IO[bytes]:
        """Return an encoded image.

        Raises:
            DataError: the image cannot be read, or its checksum is wrong; the message names it.
        """
        with readable(self.name(index)):
            file = os.open(self._paths[self._shard[index]], os.O_RDONLY)
            try:
                content = os.pread(file, self._size[index], self._offset[index])
            finally:
                os.close(file)
        crc = self._crc[index]
        if len(content) < self._size[index] or (crc >= 0 and zlib.crc32(content) != crc):
            raise UnreadableImageError(self.name(index), "its checksum differs from the index; copy this shard again")
        return io.BytesIO(content)

    def name(self, index: int) -> str:
        """Return the path of the shard and the name of the image in it."""
        return f"{self._paths[self._shard[index]]}/{os.fsdecode(self._rows['name'][index])}"


def open_shards(spec: str, split: str) -> ImageData:
    """Open `wds:FOLDER`, or shards with braces for their numbers: files, `http(s)://` or `pipe:`.

    Args:
        spec: the spec.
        split: "train" or "val", for a folder that has both.

    Raises:
        DataError: there are no such shards, an option is unknown, the index or the class names are missing, a shard is
            damaged, or the package webdataset is missing.
    """
    name, options = _options(spec)
    if not name:
        raise DataError(f"invalid spec {spec!r}: expected wds:FOLDER or wds:FOLDER/train-{{000000..000127}}.tar")
    streams = options.get("streams", "0")
    if not streams.isdecimal() or ("streams" in options and not int(streams)):
        raise DataError(f"{spec!r}: streams must be a whole number above 0, got {streams!r}")
    if is_remote(name):
        return _open_remote(spec, expand(name), options, int(streams))
    if "streams" in options:
        raise DataError(f"{spec!r}: streams= is for shards over HTTP or a pipe; shards on disk are read in any order")
    if Path(name).is_dir():
        return _open_folder(spec, Path(name), split, options)
    paths = [Path(path) for path in expand(name)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{spec!r}: {len(missing)} of {len(paths)} shards do not exist, such as {missing[0]}; give the numbers of "
            f"existing shards, as in {{000000..000127}}"
        )
    index = _find_index(paths, options)
    if index is None:
        index = read_shards(spec, list(map(str, paths)), options.get("classes"), lambda steps, total, what: steps)
    return _open_local(spec, paths, index, False)


def _options(spec: str) -> tuple[str, dict[str, str]]:
    """Split a spec into shards and options. A URL or a command may contain question marks itself."""
    name = spec.partition(":")[2]
    if not is_remote(name):
        name, options = options_of(spec)
    else:
        own = re.fullmatch(rf"(.*?)\?((?:{'|'.join(_OPTIONS)})=[^?]*)", name, re.DOTALL)
        name, options = own[1] if own else name, options_of(f"wds:?{own[2]}")[1] if own else {}
    for key in options:
        if key not in _OPTIONS:
            raise DataError(f"{spec!r}: {unknown_name('option of wds:', key, _OPTIONS)}")
    return name, options


def _open_folder(spec: str, folder: Path, split: str, options: dict[str, str]) -> ImageData:
    """Open the shards of a folder that senet wrote: one split, if the folder has both."""
    if options:
        raise DataError(f"{spec!r}: a folder of senet's own shards takes no {', '.join(options)}; its index has both")
    names = index_names(folder)
    both = {"train", "val"} <= set(names)
    if not both and len(names) > 1:
        raise DataError(
            f"{spec!r}: the folder {folder} has shards named {', '.join(names)}; choose one, as in "
            f"wds:{folder}/{names[0]}-{{000000..000127}}.tar"
        )
    index = _read_index(str(folder / index_file(split if both else names[0])))
    return _open_local(spec, [folder / shard.file for shard in index.shards], index, both)


def index_names(folder: Path) -> list[str]:
    """Return the names of the indexed shards in a folder, such as "train" and "val".

    Raises:
        DataError: the folder has no index.
    """
    suffix = index_file("")
    names = sorted(path.name.removesuffix(suffix) for path in folder.glob(f"[!.]*{suffix}"))
    if not names:
        what = f"the folder {folder} has no index of shards (*{suffix})" if folder.is_dir() else f"no folder {folder}"
        raise DataError(
            f"{what}: write shards with senet shard SPEC -o {folder}; open shards of other programs as "
            f"wds:{folder}/NAME-{{000000..000127}}.tar"
        )
    return names


def _open_local(spec: str, paths: list[Path], index: ShardIndex, has_splits: bool) -> ImageData:
    starts = index.starts
    for number, (path, shard) in enumerate(zip(paths, index.shards, strict=True)):
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{spec!r}: cannot read the shard {path}: {error.strerror}; copy it again") from error
        rows = index.rows[starts[number] : starts[number + 1]]
        if (shard.bytes and size != shard.bytes) or (rows["size"] > size - rows["offset"]).any():
            expected = f"{shard.bytes:,}" if shard.bytes else "more"
            raise DataError(
                f"{spec!r}: the shard {path} has {size:,} bytes, and {expected} in the index: it is truncated, or of "
                f"another data set; copy it again"
            )
    return ImageData(
        spec, LocalShards(paths, index), index.labels, index.classes, has_splits=has_splits, skipped_files=index.skipped
    )


def _open_remote(spec: str, urls: list[str], options: dict[str, str], streams: int) -> ImageData:
    index = _find_index(urls, options)
    if index is None:
        raise DataError(
            f"{spec!r} has no index of its images and classes: give index=FILE or index=URL, or write one with senet "
            f"shard SPEC --index-only -o DIR, which reads all shards once"
        )
    return ImageData(spec, RemoteShards(urls, index, streams), index.labels, index.classes, skipped_files=index.skipped)


def _find_index(shards: Sequence[str | Path], options: dict[str, str]) -> ShardIndex | None:
    """Return the index that an option names, or that is in the folder of the shards; restricted to these shards."""
    files = [file_of(str(shard)) for shard in shards]
    if "index" in options:
        if "classes" in options:
            raise DataError("an index has class names; give either index= or classes=")
        index = _read_index(options["index"])
    else:
        own = re.fullmatch(r"(.+)-\d+\.tar", files[0])
        folder = str(shards[0]).partition("?")[0].removesuffix(files[0])
        if own is None or "classes" in options or folder.startswith("pipe:"):
            return None
        where = folder + index_file(own[1])
        if not is_remote(where) and not Path(where).is_file():
            return None
        index = _read_index(where)
    chosen = index.choose(files)
    if chosen is None and len(index.shards) == len(files):
        chosen = index  # renamed shards, in the same order
    if chosen is None:
        unknown = next(file for file in files if file not in {shard.file for shard in index.shards})
        raise DataError(
            f"the index {options.get('index', index_file(index.name))} has {len(index.shards)} shards, "
            f"{index.shards[0].file} to {index.shards[-1].file}, and none named {unknown!r}"
        )
    return chosen


def _read_index(where: str) -> ShardIndex:
    """Read an index from disk or over HTTP; never from a command, which the user did not write."""
    if not where.endswith(index_file("")):
        raise DataError(f"invalid index {where!r}: expected a file named NAME{index_file('')}")
    stem = where.removesuffix(index_file(""))
    if where.startswith(("http://", "https://")):
        return parse_index(read_url(where), read_url(rows_file(stem)), where)
    return read_index(Path(where))


def index_spec(spec: str, *, progress: Progress) -> ShardIndex:
    """Index the shards of a spec, with a checksum of each image. All shards are read once.

    Args:
        spec: `wds:SHARDS`, and `?classes=FILE` if the labels are numbers.
        progress: shows progress over shards.

    Raises:
        DataError: see `open_shards`.
    """
    if not spec.startswith("wds:"):
        raise DataError(f"invalid spec {spec!r}: expected shards to index, wds:NAME-{{000000..000127}}.tar")
    name, options = _options(spec)
    shards = expand(name)
    own = re.fullmatch(r"(.+?)-?\d+\.tar(\.\w+)?", file_of(shards[0]))
    return read_shards(spec, shards, options.get("classes"), progress, own[1] if own else "shards", True)
