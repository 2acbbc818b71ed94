import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from senet.utils.errors import DataError, FileError, ModelFileError, shown
from senet.utils.input_files import (
    array_of,
    parse_json,
    parse_toml,
    read_bytes,
    read_json,
    read_lines,
    read_text,
    read_toml,
    reading,
    same_name,
)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (RuntimeError("Failed to decode frame\nmore"), "Failed to decode frame"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (MemoryError(), "it needs more memory than there is"),
        (KeyError("epochs"), "it lacks 'epochs'"),
        (OverflowError("int too large"), "int too large"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
    ],
)
def test_whatever_a_reader_raises_names_the_file(raised: Exception, reason: str) -> None:
    with (
        pytest.raises(ModelFileError, match=f"^cannot read the checkpoint a.pt: {reason}; copy it anew$") as caught,
        reading("a.pt", "checkpoint", error=ModelFileError, remedy="copy it anew"),
    ):
        raise raised
    assert caught.value.__cause__ is raised


def test_own_errors_and_ends_pass_unchanged() -> None:
    for error in (DataError("says where"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()):
        with pytest.raises(type(error)) as caught, reading("file"):
            raise error
        assert caught.value is error


def test_generator_inside_can_be_closed() -> None:
    def lines() -> Iterator[int]:
        with reading("file"):
            yield from range(3)

    found = lines()
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "content", ["ä\nb\n".encode(), b"\xef\xbb\xbf" + "ä\r\nb\r\n".encode(), "ä\rb".encode(), "ä  \nb\n\n\n".encode()]
)
def test_marks_and_line_ends_are_no_part_of_the_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "names").write_bytes(content)
    assert read_lines(tmp_path / "names", "list") == ["ä", "b"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("ä".encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
        ("ä".encode("utf-32"), "it is UTF-32 text; save it as UTF-8"),
        (b"abc\xff", "byte 3 is not UTF-8 text"),
    ],
)
def test_text_in_another_encoding(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(FileError, match=f"cannot read the list .*names: {reason}"):
        read_text(tmp_path / "names", "list")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read the list .*: it is a folder"):
        read_text(tmp_path, "list")
    with pytest.raises(FileError, match="cannot read the list .*missing: No such file or directory"):
        read_text(tmp_path / "missing", "list")
    with pytest.raises(FileError, match="zero: it is not a regular file"):  # which never ends
        read_text("/dev/zero", "list")
    (tmp_path / "large").write_bytes(b"12345")
    assert read_bytes(tmp_path / "large", "file", 5) == b"12345"
    with pytest.raises(DataError, match="the file .*large: it has more than 4 bytes, which is the limit"):
        read_bytes(tmp_path / "large", "file", 4, error=DataError)


@pytest.mark.parametrize("read", [read_json, read_toml])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "it is nested too deeply|it is not TOML"),
        ("{{{", "it is not"),
        ('a = 1\nb = "x"\nepochs = ' + "1" * 5000, r"line 3 \(epochs = ...\) has a number of 5,000 digits|not JSON"),
        ('{"a": 1,\n"epochs": ' + "1" * 5000 + "}", r'line 2 \("epochs": ...\) has a number of 5,000 digits|not TOML'),
        ("epochs = 0x" + "f" * 5000, "epochs must be a number of at most 64 bits, got a number of 20000 bits|not JSON"),
        ('{"a": {"b": [1, 99999999999999999999]}}', "a.b must be a number of at most 64 bits, got 9999|not TOML"),
    ],
)
def test_hostile_values(tmp_path: Path, read: object, text: str, reason: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(FileError, match=f"cannot read the study .*file: .*({reason})"):
        read(tmp_path / "file", "study")  # type: ignore[operator]


def test_good_values() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [1, -9223372036854775808, 1.5, null]}') == {"a": [1, -(2**63), 1.5, None]}
    assert parse_toml("seed = 9223372036854775807") == {"seed": 2**63 - 1}
    with pytest.raises(ValueError, match="it is not JSON"):
        parse_json("")


def test_array_has_the_size_that_its_header_says(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    content = (tmp_path / "a.npy").read_bytes()
    assert (array_of(content) == array).all()
    for broken in (
        content[:-1],
        content + b"x",
        content.replace(b"(2, 3)", b"(2,-3)"),
        content.replace(b"<i4", b"|O4"),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  (numpy's own messages, too)
            array_of(broken)


def test_names_in_either_form_are_the_same() -> None:
    name = "Käfer"
    assert same_name(unicodedata.normalize("NFD", name)) == same_name(name) == name


def test_values_are_shown_in_a_line() -> None:
    assert shown(5) == "5"
    assert shown(10**5000) == "a number of 16610 bits"
    assert shown([10**5000]) == "a list"
    assert shown("x" * 100) == "'" + "x" * 56 + "..."
    assert len(shown(json.loads("[" * 900 + "]" * 900))) == 60
