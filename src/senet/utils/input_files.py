"""Read external files: any exception of a reader becomes an error that names the file.

Every external file (images, archives, weights, model files, checkpoints, recipes, studies, reports, recordings, class
lists, indexes) is read inside `explaining`, or `reading`, which is based on it. Readers are third-party code, and their
exceptions on damaged files cannot be enumerated: a damaged AVIF raises RuntimeError, a flipped bit in a PNG zlib.error,
nested JSON RecursionError.
"""

import io
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

from senet.utils.errors import FileError, SenetError, first_line, shown

__all__ = [
    "TEXT_LIMIT",
    "array_of",
    "check_numbers",
    "decode_text",
    "explaining",
    "file_content",
    "parse_json",
    "parse_toml",
    "read_bytes",
    "read_json",
    "read_lines",
    "read_text",
    "read_toml",
    "reading",
    "reason_of",
    "same_name",
]

# Bytes of a text file. Recipes and studies have kilobytes; the report of a study with a thousand arms has megabytes.
TEXT_LIMIT = 64 * 2**20
TOML_LIMIT = 2**20
# Characters of a reason, which may contain values from the file.
_LONGEST = 1000
# Dots in a line of TOML, from dotted keys or numbers.
_MOST_DOTS = 1000
# UTF-32 first: its little-endian mark starts with the UTF-16 mark.
_MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@contextmanager
def explaining(make: Callable[[str], SenetError]) -> Iterator[None]:
    """Convert any exception raised while an external file is read.

    senet's own errors pass unchanged: they already name the file. So do ImportError, which is not the file's fault, and
    KeyboardInterrupt, SystemExit and GeneratorExit.

    Args:
        make: makes the raised error of a reason, see `reason_of`.

    Raises:
        SenetError: what `make` returns, caused by the reader's exception.
    """
    try:
        yield
    except (SenetError, ImportError):
        raise
    except Exception as raised:
        raise make(reason_of(raised)) from raised


@contextmanager
def reading(
    name: object,
    what: str = "file",
    *,
    error: type[SenetError] = FileError,
    remedy: str = "",
    message: str = "cannot read the {what} {name}: {reason}",
) -> Iterator[None]:
    """Convert any exception raised while an external file is read into an error that names the file; see `explaining`.

    Args:
        name: path or URL of the file.
        what: type of the file, for messages.
        error: class of the raised error.
        remedy: appended to the message.
        message: template of the message, with the fields "name", "what" and "reason".

    Raises:
        SenetError: an instance of `error`, caused by the reader's exception.
    """

    def make(reason: str) -> SenetError:
        text = message.format(name=name, what=what, reason=reason)
        return error(f"{text}; {remedy}" if remedy else text)

    with explaining(make):
        yield


def reason_of(error: Exception) -> str:
    """Return one line that explains a reader's exception, also where its message alone does not."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not {error.encoding.upper()} text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, KeyError) and error.args:
        return f"it lacks {shown(error.args[0])}"
    reason = first_line(error)
    return reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."


def read_bytes(
    path: str | os.PathLike[str], what: str, limit: int = TEXT_LIMIT, *, error: type[SenetError] = FileError
) -> bytes:
    """Read the content of a regular file of limited size.

    Args:
        path: path of the file.
        what: type of the file, for messages.
        limit: most bytes.
        error: class of the raised error.

    Raises:
        SenetError: the path is not a regular file, exceeds `limit` bytes or cannot be read.
    """
    with reading(path, what, error=error):
        return file_content(path, limit)


def file_content(path: str | os.PathLike[str], limit: int = TEXT_LIMIT) -> bytes:
    """Read a file as `read_bytes` does, for callers inside a `reading` block.

    Raises:
        OSError, ValueError: as `read_bytes`; the message does not name the file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a device or a pipe may never end
        raise ValueError(f"it is {'a folder' if path.is_dir() else 'not a regular file'}")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes, which is the limit")
    return content


def decode_text(content: bytes) -> str:
    """Decode UTF-8 text, with or without a byte-order mark, and normalize line endings.

    Raises:
        ValueError: the content is UTF-16, UTF-32, or invalid UTF-8.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"it is {encoding} text; save it as UTF-8")
    text = content.decode("utf-8-sig")  # Windows editors write a byte-order mark
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: str | os.PathLike[str], what: str, *, error: type[SenetError] = FileError) -> str:
    """Read a UTF-8 text file, see `decode_text` and `read_bytes`.

    Raises:
        SenetError: the file cannot be read, exceeds `TEXT_LIMIT` bytes or is not UTF-8.
    """
    with reading(path, what, error=error):
        return decode_text(read_bytes(path, what, error=error))


def read_lines(path: str | os.PathLike[str], what: str, *, error: type[SenetError] = FileError) -> list[str]:
    """Read the lines of a text file, stripped, without trailing empty lines.

    Raises:
        SenetError: as `read_text`.
    """
    return [line.strip() for line in read_text(path, what, error=error).rstrip().split("\n")]


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """Read the value in a JSON file.

    Raises:
        FileError: as `read_text`, or the text is not JSON.
    """
    with reading(path, what):
        return parse_json(read_text(path, what))


def parse_json(text: str | bytes, *, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse JSON whose integers fit in 64 bits.

    Args:
        text: the text.
        object_hook: converts each object, as in `json.loads`.

    Raises:
        ValueError, RecursionError: the text is not JSON, is nested too deeply, or an integer exceeds 64 bits.
    """
    text = decode_text(text) if isinstance(text, bytes) else text
    return _parsed(text, partial(json.loads, object_hook=object_hook), "JSON", json.JSONDecodeError)


def read_toml(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """Read the values in a TOML file.

    Raises:
        FileError: as `read_text`, or the text is not TOML.
    """
    with reading(path, what):
        return parse_toml(decode_text(file_content(Path(path), TOML_LIMIT)))


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML whose integers fit in 64 bits.

    Raises:
        ValueError, RecursionError: the text is not TOML, is nested too deeply, or an integer exceeds 64 bits.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:  # tomllib takes quadratic time in their number
            raise ValueError(f"line {number} has more than {_MOST_DOTS:,} dots, which is the limit")
    values: dict[str, Any] = _parsed(text, tomllib.loads, "TOML", tomllib.TOMLDecodeError)
    return values


def _parsed(text: str, parse: Callable[[str], Any], kind: str, damaged: type[ValueError]) -> Any:
    """Run a parser. A ValueError other than `damaged` is about an integer with too many digits."""
    try:
        value = parse(text)
    except damaged as error:
        raise ValueError(f"it is not {kind}: {error}") from error
    except ValueError as error:
        raise _too_long(text) from error
    check_numbers(value)
    return value


def _too_long(text: str) -> ValueError:
    """Return the error for an integer with thousands of digits. Python's own names neither key nor line."""
    for number, line in enumerate(text.split("\n"), 1):
        digits = re.search(r"\d[\d_]{999,}", line)
        if digits:
            start = line[: digits.start()].strip()[-40:]
            return ValueError(
                f"line {number} ({start} ...) has a number of {len(digits[0]):,} digits; 64 bits are the limit"
            )
    return ValueError("it has a number of thousands of digits; 64 bits are the limit")


def check_numbers(value: Any, key: str = "") -> None:
    """Check that integers fit in 64 bits, as TOML requires.

    Raises:
        ValueError: an integer exceeds 64 bits; the message names its key.
    """
    if isinstance(value, dict):
        for name, one in value.items():
            check_numbers(one, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for one in value:
            check_numbers(one, key)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        what = f"{key} must be" if key else "it has a number that is not"
        raise ValueError(f"{what} a number of at most 64 bits, got {shown(value)}")


def array_of(content: bytes) -> Any:
    """Decode a `.npy` file, checking the size in its header against its content.

    Raises:
        ValueError: the content is not a `.npy` file, holds pickled objects, or does not match its header.
    """
    import numpy as np

    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    rest = content[file.tell() :]
    if dtype.hasobject or any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError("an array is not of its size")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C").copy()


def same_name(name: str) -> str:
    """Normalize a class name to NFC: file systems and editors encode the same letters differently."""
    return normalize("NFC", name)
