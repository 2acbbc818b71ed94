"""Shards that are read from their beginning to their end: of a command's output, or over HTTP.

The webdataset library opens and takes apart the streams; none of its decoders is used, some of which would run code
that a shard holds. HTTP goes through curl, as in that library.
"""

import io
import os
import re
import tarfile
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import IO, Any

import numpy as np

from senet.data.decoding import is_kind
from senet.data.shards.archives import META, Member, content_of
from senet.data.shards.index import Row, Rows, ShardIndex
from senet.utils.errors import DataError
from senet.utils.extras import install_command

__all__ = ["RemoteShards", "images_of", "read_url", "scan_url"]

# How often a shard is opened anew when its stream breaks, and seconds before the first of these times.
ATTEMPTS = 4
PAUSE = 1.0
# Seconds without a byte, after which a connection has broken.
STALL = 60
_INDEX_LIMIT = 2**32


class RemoteShards:
    """Images of shards that can only be read in order.

    One image after another is read as it comes; an image before the last one opens its shard again.

    Args:
        urls: of the shards: `http(s)://` or `pipe:`.
        index: of the same.
        streams: that are read at the same time in training, over all processes; 0: as many as there are shards, in
            powers of two, up to 8.
    """

    def __init__(self, urls: Sequence[str], index: ShardIndex, streams: int = 0) -> None:
        if streams > len(urls):
            raise DataError(f"streams={streams} is more than the {len(urls)} shards; each is read by one at a time")
        self.urls, self.rows, self.starts = list(urls), index.rows, index.starts
        self.streams = streams or 2 ** min(3, len(urls).bit_length() - 1)
        self._open: tuple[int, int, int, Generator[tuple[int, bytes | str]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def shard_of(self, rows: Any) -> Any:
        """The shards that images are in, by their places in the source."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def images(self, shard: int) -> Generator[tuple[int, bytes | str]]:
        """The images of a shard, see `images_of`."""
        return images_of(self.urls[shard], self.rows[self.starts[shard] : self.starts[shard + 1]])

    def read(self, index: int) -> IO[bytes]:
        """An encoded image.

        Raises:
            DataError: it cannot be read, or does not have its checksum; the message names it.
        """
        content = self.content(index)
        if isinstance(content, str):
            raise DataError(content)
        return io.BytesIO(content)

    def content(self, index: int) -> bytes | str:
        """An encoded image, or why it cannot be used."""
        shard = int(self.shard_of(index))
        wanted = index - int(self.starts[shard])
        # A process that was forked has no part in the stream of its parent.
        if self._open is None or self._open[:2] != (os.getpid(), shard) or self._open[2] > wanted:
            stream = self.images(shard)
        else:
            stream = self._open[3]
        self._open = None  # until it is known to have come that far
        place, content = next(item for item in stream if item[0] == wanted)
        if index + 1 < self.starts[shard + 1]:
            self._open = (os.getpid(), shard, place + 1, stream)
        else:
            stream.close()
        return content

    def name(self, index: int) -> str:
        """The shard, and the image's name in it."""
        return f"{self.urls[int(self.shard_of(index))]}/{os.fsdecode(self.rows['name'][index])}"


def images_of(url: str, rows: Rows) -> Generator[tuple[int, bytes | str]]:
    """The images of a shard in order: place in it, and the encoded image, or why it cannot be used.

    A stream that breaks is opened again, and goes on where it was.

    Raises:
        DataError: it breaks again and again, or the shard is not that of the index.
    """
    done = 0
    for attempt in range(ATTEMPTS):
        before = done
        try:
            with closing(_read_shard(url, rows)) as images:
                for place, content in images:
                    if place >= done:
                        done = place + 1
                        yield place, content
            return
        except GeneratorExit:  # also when Python ends, and names of this module are gone
            raise
        except DataError:
            raise
        except Exception as error:  # tarfile, curl and every decompressor have errors of their own
            if attempt == ATTEMPTS - 1:
                raise DataError(
                    f"the shard {url} breaks off after {done:,} of {len(rows):,} images ({_reason(error)}); it was "
                    f"opened {ATTEMPTS} times"
                ) from error
        if done == before:
            time.sleep(PAUSE * 2**attempt)


def _read_shard(url: str, rows: Rows) -> Generator[tuple[int, bytes | str]]:
    """The same, from a stream that may break with any error."""
    from webdataset.tariterators import group_by_keys

    place = 0
    with _opened(url) as stream:
        try:
            for sample in group_by_keys(_files(url, stream)):
                if place == len(rows):
                    raise _other(url, f"it has more than {place:,} images")
                name = os.fsdecode(rows["name"][place])
                head, _, suffix = os.path.basename(name).partition(".")
                key = os.path.join(os.path.dirname(name), head)
                if sample["__key__"] != key:
                    if any(map(is_kind, sample)):  # what has no image has no place in the index
                        raise _other(url, f"image {place} is called {sample['__key__']!r}, and not {key!r}")
                    continue
                content, crc = sample.get(suffix.lower(), b""), rows["crc"][place]
                spoilt = len(content) != rows["size"][place] or (crc >= 0 and zlib.crc32(content) != crc)
                why = f"cannot read the image {url}/{name}: its bytes are not those that the index has the checksum of"
                yield place, why if spoilt else content
                place += 1
            if place < len(rows):
                raise EOFError("the archive ends there")
        except (tarfile.TarError, EOFError):
            stream.close()  # it tells why, if the command failed
            raise


def _files(url: str, stream: Any) -> Iterator[dict[str, Any]]:
    """The files of a shard, as webdataset's own reader gives them, which however trusts the sizes of members."""
    output: Any = _Output(stream)
    with tarfile.open(fileobj=output, mode="r|*", tarinfo=Member) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would remember all
            if member.isreg() and not META.match(member.name):
                yield {"fname": member.name, "data": content_of(archive, member), "__url__": url}


def _other(url: str, why: str) -> DataError:
    return DataError(f"the shard {url} is not that of the index: {why}; give the index of these shards")


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    """A stream of a command's output; the command is ended with it."""
    try:
        from webdataset.gopen import Pipe, gopen
    except ImportError as error:
        raise DataError(f"the shard {url} needs webdataset: {install_command('train')}") from error
    try:
        if url.startswith("pipe:"):
            stream = gopen(url, mode="rb", bufsize=2**16)
        else:
            # As gopen would, but without its `--retry`, which begins again in the middle of the output; and with an end
            # to a connection that has gone silent.
            command = ["curl", "-f", "-s", "-L", "--connect-timeout", "30", "--speed-limit", "1"]
            command += ["--speed-time", str(STALL), "--", url]
            stream = Pipe(command, mode="rb", bufsize=2**16, ignore_status=[141, 23])
    except FileNotFoundError as error:
        raise DataError(f"cannot open {url}: the command {error.filename} is missing; install it") from error
    try:
        yield stream
    finally:
        if stream.proc.poll() is None:
            stream.proc.kill()  # one that is not read any more may wait for ever
        with suppress(OSError, AttributeError):  # an end that we made; as Python ends, the library has no os any more
            stream.close()


class _Output:
    """What a command has written, as soon as it has: tarfile would wait for more, which may never come."""

    def __init__(self, stream: Any) -> None:
        self._file = stream.stream

    def read(self, size: int) -> bytes:
        content: bytes = self._file.read1(size)
        return content


def _reason(error: Exception) -> str:
    """What the library's errors say, without the objects that they have with them."""
    text = str(error.args[0] if error.args else type(error).__name__).split(" @ ")[0]
    status = re.search(r"exit (-?\d+) \(read\)", text)
    return f"its command ended with exit status {status[1]}" if status else text


def read_url(url: str) -> bytes:
    """A file over HTTP.

    Raises:
        DataError: there is no such file, or it cannot be had.
    """
    with _opened(url) as stream:
        try:
            content: bytes = stream.stream.read(_INDEX_LIMIT)
            stream.close()
        except OSError as error:
            raise DataError(
                f"cannot read {url}: curl ended with exit status {stream.status} (22: there is no such file; 6, 7 and "
                f"28: no such host, no answer, too slow); shards without an index need index=FILE"
            ) from error
    return content


def scan_url(url: str, scan: Callable[..., Iterator[tuple[Row, str]]]) -> Iterator[tuple[Row, str]]:
    """The images of a shard that is read once, with checksums, as `scan` finds them.

    Raises:
        DataError: it cannot be read.
    """
    with _opened(url) as stream:
        try:
            output: Any = _Output(stream)
            with tarfile.open(fileobj=output, mode="r|*", tarinfo=Member) as archive:
                yield from scan(archive, url, True)
            while stream.stream.read(2**16):
                pass  # the zeros at the end
            stream.close()
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"cannot read the shard {url}: {_reason(error)}") from error
