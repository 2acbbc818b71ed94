"""The boundary around files that others wrote: whatever a reader raises becomes an error that names the file.

Every file from outside (images, archives, weights, model files, checkpoints, recipes, studies, reports, recordings,
class lists, indexes) is read inside `reading`. Readers are third-party code, and what they raise on damaged bytes is no
list to keep: a damaged AVIF is a RuntimeError, a flipped bit in a PNG a zlib.error, nested JSON a RecursionError.
"""

import io
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unicodedata import normalize

from senet.utils.errors import FileError, SenetError, first_line, shown

__all__ = [
    "TEXT_LIMIT",
    "array_of",
    "check_numbers",
    "decode_text",
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

# Bytes of a text file: recipes and studies have kilobytes, the report of a study of a thousand arms has megabytes.
TEXT_LIMIT = 64 * 2**20
TOML_LIMIT = 2**20
# Letters of a reason, which may hold values of the file.
_LONGEST = 1000
# In a line of TOML: of dotted keys, or of numbers.
_MOST_DOTS = 1000
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@contextmanager
def reading(
    name: object,
    what: str = "file",
    *,
    error: type[SenetError] = FileError,
    remedy: str = "",
    message: str = "cannot read the {what} {name}: {reason}",
) -> Iterator[None]:
    """Convert whatever is raised while a file of others is read into an error that names the file.

    senet's own errors pass unchanged: they say already what is wrong and where. So does ImportError, which is no fault
    of the file, and KeyboardInterrupt, SystemExit and GeneratorExit, which are no errors.

    Args:
        name: path or URL of the file.
        what: kind of the file, in messages.
        error: class of the error.
        remedy: what to do about it, appended to the message.
        message: of the error, with the fields "name", "what" and "reason".

    Raises:
        SenetError: of the class `error`, with the reader's exception as its cause.
    """
    try:
        yield
    except (SenetError, ImportError):
        raise
    except Exception as raised:
        reason = reason_of(raised)
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."
        text = message.format(name=name, what=what, reason=reason)
        raise error(f"{text}; {remedy}" if remedy else text) from raised


def reason_of(error: Exception) -> str:
    """One line that says why a reader failed, also for exceptions whose text alone says nothing."""
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
    return first_line(error)


def read_bytes(
    path: str | os.PathLike[str], what: str, limit: int = TEXT_LIMIT, *, error: type[SenetError] = FileError
) -> bytes:
    """The content of a regular file of a bounded size.

    Args:
        path: of the file.
        what: kind of the file, in messages.
        limit: bytes.
        error: class of the error.

    Raises:
        SenetError: the path is no regular file, is larger than `limit` bytes or cannot be read; the message names it.
    """
    with reading(path, what, error=error):
        return file_content(path, limit)


def file_content(path: str | os.PathLike[str], limit: int = TEXT_LIMIT) -> bytes:
    """The same, for callers that are inside `reading` already.

    Raises:
        OSError, ValueError: as `read_bytes`, without the name.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a device or a pipe may never end
        raise ValueError(f"it is {'a folder' if path.is_dir() else 'no regular file'}")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes, which is the limit")
    return content


def decode_text(content: bytes) -> str:
    """UTF-8 text, with or without a byte-order mark, of any line ends.

    Raises:
        ValueError: it is UTF-16 or UTF-32, or not UTF-8.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"it is {encoding} text; save it as UTF-8")
    text = content.decode("utf-8-sig")  # editors on Windows write a mark before the text
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: str | os.PathLike[str], what: str, *, error: type[SenetError] = FileError) -> str:
    """The text of a file in UTF-8, see `decode_text` and `read_bytes`.

    Raises:
        SenetError: it cannot be read, is larger than `TEXT_LIMIT` bytes or is no UTF-8; the message names it.
    """
    with reading(path, what, error=error):
        return decode_text(read_bytes(path, what, error=error))


def read_lines(path: str | os.PathLike[str], what: str, *, error: type[SenetError] = FileError) -> list[str]:
    """The lines of a text file, without spaces around them and without empty lines at the end.

    Raises:
        SenetError: as `read_text`.
    """
    return [line.strip() for line in read_text(path, what, error=error).rstrip().split("\n")]


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """The value of a JSON file.

    Raises:
        FileError: as `read_text`, or it is not JSON.
    """
    with reading(path, what):
        return parse_json(read_text(path, what))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, of numbers that the rest of Python can work with.

    Raises:
        ValueError, RecursionError: it is not JSON, is nested too deeply, or a number has more than 64 bits.
    """
    text = decode_text(text) if isinstance(text, bytes) else text
    return _parsed(text, json.loads, "JSON", json.JSONDecodeError)


def read_toml(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        FileError: as `read_text`, or it is not TOML.
    """
    with reading(path, what):
        return parse_toml(decode_text(file_content(Path(path), TOML_LIMIT)))


def parse_toml(text: str) -> dict[str, Any]:
    """The values of a TOML text.

    Raises:
        ValueError, RecursionError: it is not TOML, is nested too deeply, or a whole number has more than 64 bits.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:  # tomllib takes the square of their number, in time
            raise ValueError(f"line {number} has more than {_MOST_DOTS:,} dots, which is the limit")
    values: dict[str, Any] = _parsed(text, tomllib.loads, "TOML", tomllib.TOMLDecodeError)
    return values


def _parsed(text: str, parse: Callable[[str], Any], kind: str, damaged: type[ValueError]) -> Any:
    """The value that a parser finds; any other ValueError of it is about a number that is too long."""
    try:
        value = parse(text)
    except damaged as error:
        raise ValueError(f"it is not {kind}: {error}") from error
    except ValueError as error:
        raise _too_long(text) from error
    check_numbers(value)
    return value


def _too_long(text: str) -> ValueError:
    """The error for a number of thousands of digits, for which Python's own names neither key nor line."""
    for number, line in enumerate(text.split("\n"), 1):
        digits = re.search(r"\d[\d_]{999,}", line)
        if digits:
            start = line[: digits.start()].strip()[-40:]
            return ValueError(
                f"line {number} ({start} ...) has a number of {len(digits[0]):,} digits; 64 bits are the limit"
            )
    return ValueError("it has a number of thousands of digits; 64 bits are the limit")


def check_numbers(value: Any, key: str = "") -> None:
    """Refuse whole numbers of more than 64 bits, which TOML does not have and which no setting means.

    Raises:
        ValueError: there is one; the message names its key.
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
    """The array of a file of `numpy.save`, whose header and content agree: a header alone may claim any size.

    Raises:
        ValueError: it is no such file, has pickled objects, or another size than its header says.
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
    """A class name in the composed form (NFC): file systems and editors write the same letters in different bytes."""
    return normalize("NFC", name)
