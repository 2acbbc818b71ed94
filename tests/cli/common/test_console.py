import json
import os
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from senet.cli.common import console
from senet.version import __version__
from tests.cli.helpers import invoke


@pytest.fixture
def broken_pipe() -> Iterator[TextIO]:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as file:
        yield file  # and closes: what is left in its buffer goes nowhere, without an error


def test_a_reader_of_the_answer_that_leaves_ends_the_command(broken_pipe: TextIO) -> None:
    with pytest.raises(SystemExit) as caught:
        console._Console(file=broken_pipe).print("answer")
    assert caught.value.code == 141  # as SIGPIPE would


def test_a_reader_of_the_progress_that_leaves_does_not(broken_pipe: TextIO) -> None:
    progress = console._Console(file=broken_pipe, stderr=True)
    progress.print("epoch 1")
    assert progress.quiet
    progress.print("epoch 2")
    print("what others write there", file=broken_pipe, flush=True)
    assert os.path.samestat(os.fstat(broken_pipe.fileno()), os.stat(os.devnull))


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    name = "NaN [b]:dog: \x1b[31m\x7f\x9b\u202e\udcff\r\n" + "x" * 3000
    value = {"loss": float("nan"), "errors": [float("-inf"), 1.5], "name": name}
    console.print_json(value)
    out = capsys.readouterr().out
    assert not set(out) & {*map(chr, range(32)), "\x7f", "\x9b", "\u202e"} - {"\n"}
    read = json.loads(out, parse_constant=pytest.fail)
    assert read == value | {"loss": None, "errors": [None, 1.5]}


def test_version() -> None:
    assert invoke("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("command", ["models", "insert", "train", "compare", "evaluate", "predict"])
def test_help(command: str) -> None:
    assert command in invoke("-h").stdout
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("[b]:dog:", ["name", "value"], [["[red]a", 1234], ["b", "x" * 9]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["[b]:dog:", "name        value", "[red]a      1,234", "b       xxxxxxxxx"]
    console.table("", ["name", "value"], [])
    assert capsys.readouterr().out.split() == ["name", "value"]


@pytest.mark.parametrize(
    ("text", "values"), [(None, None), ("0.5", [0.5]), ("1, 2,3e-1", [1.0, 2.0, 0.3])], ids=["none", "one", "three"]
)
def test_floats(text: str | None, values: list[float] | None) -> None:
    assert console.floats(text, "--mean") == values


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Seven seconds pass between any two looks at it."""
    now = iter(range(0, 10_000, 7))

    def tick() -> float:
        return next(now)

    monkeypatch.setattr(console.time, "monotonic", tick)
    return tick


@pytest.mark.usefixtures("clock")
def test_track_by_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.progress(range(5), 5, "decode")) == list(range(5))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["decode: 1 of 5", "decode: 3 of 5"]


@pytest.mark.usefixtures("terminal")
def test_track_by_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.progress(range(3), 3, "decode data[/a]")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "decode data[/a]" in err
    assert "3/3" in err
