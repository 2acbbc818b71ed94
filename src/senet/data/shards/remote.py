"""Read shards sequentially: from the output of a command, or over HTTP.

The webdataset library opens and splits the streams. Its decoders are not used: some of them would run code that a
shard contains. HTTP uses curl, as in that library.
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
from senet.utils.errors import DataError, UnreadableImageError
from senet.utils.extras import optional_import

__all__ = ["RemoteShards", "images_of", "read_url", "scan_url"]

# How often a shard is opened if its stream breaks, and seconds before the second attempt.
ATTEMPTS = 4
PAUSE = 1.0
# Seconds without a byte after which a connection counts as broken.
STALL = 60
_INDEX_LIMIT = 2**32


class RemoteShards:
    """Images of shards that can only be read in order.

    Reading images in ascending order reads each shard once; reading an earlier image opens its shard again.

    Args:
        urls: `http(s)://` or `pipe:` of each shard.
        index: index of these shards.
        streams: number of streams that training reads at the same time, over all processes; 0 chooses the largest power
            of two up to 8 and up to the number of shards.

    Raises:
        DataError: there are more streams than shards.
    """

    def __init__(self, urls: Sequence[str], index: ShardIndex, streams: int = 0) -> None:
        if streams > len(urls):
            raise DataError(f"streams={streams} is more than the {len(urls)} shards; each is read by one at a time")
        self.urls, self.rows, self.starts = list(urls), index.rows, index.starts
        self.streams = streams or 2 ** min(3, len(urls).bit_length() - 1)
        self._open: tuple[int, int, int, Generator[tuple[int, bytes | UnreadableImageError]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def shard_of(self, rows: Any) -> Any:
        """Return the shards of images, given by their positions in the source."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def images(self, shard: int) -> Generator[tuple[int, bytes | UnreadableImageError]]:
        """Yield the images of a shard, see `images_of`."""
        return images_of(self.urls[shard], self.rows[self.starts[shard] : self.starts[shard + 1]])

    def read(self, index: int) -> IO[bytes]:
        """Return an encoded image.

        Raises:
            DataError: the image cannot be read, or its checksum is wrong; the message names it.
        """
        content = self.content(index)
        if isinstance(content, UnreadableImageError):
            raise content
        return io.BytesIO(content)

    def content(self, index: int) -> bytes | UnreadableImageError:
        """Return an encoded image, or why it cannot be read."""
        shard = int(self.shard_of(index))
        wanted = index - int(self.starts[shard])
        # A forked process must not read the stream of its parent.
        if self._open is None or self._open[:2] != (os.getpid(), shard) or self._open[2] > wanted:
            stream = self.images(shard)
        else:
            stream = self._open[3]
        self._open = None  # in case reading fails
        place, content = next(item for item in stream if item[0] == wanted)
        if index + 1 < self.starts[shard + 1]:
            self._open = (os.getpid(), shard, place + 1, stream)
        else:
            stream.close()
        return content

    def name(self, index: int) -> str:
        """Return the URL of the shard and the name of the image in it."""
        return f"{self.urls[int(self.shard_of(index))]}/{os.fsdecode(self.rows['name'][index])}"


def images_of(url: str, rows: Rows) -> Generator[tuple[int, bytes | UnreadableImageError]]:
    """Yield the images of a shard in order: position, and the encoded image or why it cannot be read.

    A stream that breaks is opened again, and continues after the last image.

    Args:
        url: the shard.
        rows: its rows of the index.

    Raises:
        DataError: the stream breaks `ATTEMPTS` times, or the shard does not match the index.
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
        except GeneratorExit:  # also at interpreter exit, when this module's names are gone
            raise
        except DataError:
            raise
        except Exception as error:  # tarfile, curl and each decompressor raise their own errors
            if attempt == ATTEMPTS - 1:
                raise DataError(
                    f"the shard {url} breaks off after {done:,} of {len(rows):,} images ({_reason(error)}); it was "
                    f"opened {ATTEMPTS} times"
                ) from error
        if done == before:
            time.sleep(PAUSE * 2**attempt)


def _read_shard(url: str, rows: Rows) -> Generator[tuple[int, bytes | UnreadableImageError]]:
    """Yield the images from one stream, which may break with any error."""
    from webdataset.tariterators import group_by_keys

    place = 0
    with _opened(url) as stream:
        try:
            for sample in group_by_keys(_files(url, stream)):
                if place == len(rows):
                    raise _mismatch(url, f"it has more than {place:,} images")
                name = os.fsdecode(rows["name"][place])
                head, _, suffix = os.path.basename(name).partition(".")
                key = os.path.join(os.path.dirname(name), head)
                if sample["__key__"] != key:
                    if any(map(is_kind, sample)):  # keys without an image are not in the index
                        raise _mismatch(url, f"image {place} is named {sample['__key__']!r} instead of {key!r}")
                    continue
                content, crc = sample.get(suffix.lower(), b""), rows["crc"][place]
                damaged = len(content) != rows["size"][place] or (crc >= 0 and zlib.crc32(content) != crc)
                reason = "its checksum differs from the index"
                yield place, UnreadableImageError(f"{url}/{name}", reason) if damaged else content
                place += 1
            if place < len(rows):
                raise EOFError("the archive ends there")
        except (tarfile.TarError, EOFError):
            stream.close()  # raises the error of the command, if it failed
            raise


def _files(url: str, stream: Any) -> Iterator[dict[str, Any]]:
    """Yield the files of a shard in the form of webdataset's reader, which does not check the sizes of members."""
    output: Any = _Output(stream)
    with tarfile.open(fileobj=output, mode="r|*", tarinfo=Member) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
            if member.isreg() and not META.match(member.name):
                yield {"fname": member.name, "data": content_of(archive, member), "__url__": url}


def _mismatch(url: str, reason: str) -> DataError:
    return DataError(f"the shard {url} does not match the index: {reason}; give the index of these shards")


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    """Open the output of a command as a stream; the command is killed on exit.

    Raises:
        DataError: webdataset or the command is missing.
    """
    with optional_import("train", f"the shard {url} needs webdataset", DataError):
        from webdataset.gopen import Pipe, gopen
    try:
        if url.startswith("pipe:"):
            stream = gopen(url, mode="rb", bufsize=2**16)
        else:
            # As in gopen, but without `--retry`, which restarts in the middle of the output; and with a limit for
            # connections that stall.
            command = ["curl", "-f", "-s", "-L", "--connect-timeout", "30", "--speed-limit", "1"]
            command += ["--speed-time", str(STALL), "--", url]
            stream = Pipe(command, mode="rb", bufsize=2**16, ignore_status=[141, 23])
    except FileNotFoundError as error:
        raise DataError(f"cannot open {url}: the command {error.filename} is missing; install it") from error
    try:
        yield stream
    finally:
        if stream.proc.poll() is None:
            stream.proc.kill()  # it may block forever once its output is not read
        with suppress(OSError, AttributeError):  # we ended it; at interpreter exit the library has no os module
            stream.close()


class _Output:
    """The output of a command, returned as it arrives: `tarfile` waits for full blocks, which may never come."""

    def __init__(self, stream: Any) -> None:
        self._file = stream.stream

    def read(self, size: int) -> bytes:
        content: bytes = self._file.read1(size)
        return content


def _reason(error: Exception) -> str:
    """Return the message of an error of the library, without the objects that it includes."""
    text = str(error.args[0] if error.args else type(error).__name__).split(" @ ")[0]
    status = re.search(r"exit (-?\d+) \(read\)", text)
    return f"its command ended with exit status {status[1]}" if status else text


def read_url(url: str) -> bytes:
    """Read a file over HTTP.

    Raises:
        DataError: the file does not exist or cannot be read.
    """
    with _opened(url) as stream:
        try:
            content: bytes = stream.stream.read(_INDEX_LIMIT)
            stream.close()
        except OSError as error:
            raise DataError(
                f"cannot read {url}: curl ended with exit status {stream.status} (22: no such file; 6, 7 and "
                f"28: no such host, no answer, timeout); shards without an index need index=FILE"
            ) from error
    return content


def scan_url(url: str, scan: Callable[..., Iterator[tuple[Row, str]]]) -> Iterator[tuple[Row, str]]:
    """Yield the images of a shard with checksums, as `scan` finds them. The shard is read once.

    Raises:
        DataError: the shard cannot be read.
    """
    with _opened(url) as stream:
        try:
            output: Any = _Output(stream)
            with tarfile.open(fileobj=output, mode="r|*", tarinfo=Member) as archive:
                yield from scan(archive, url, True)
            while stream.stream.read(2**16):
                pass  # zeros at the end
            stream.close()
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"cannot read the shard {url}: {_reason(error)}") from error
