import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest
import typer

from senet import cli
from senet.cli import console
from senet.errors import DataError, ModelFileError, TrainingError
from senet.version import __version__
from tests.cli.helpers import invoke


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("no"), 2, "error: no\n"),
        (TypeError("no"), 2, "error: no\n"),
        (DataError("no"), 2, "error: no\n"),
        (ModelFileError("no"), 2, "error: no\n"),
        (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device\n"),
        (TrainingError("no"), 1, "error: no\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (ValueError("[bold]:dog: " + 300 * "x"), 2, f"error: [bold]:dog: {300 * 'x'}\n"),  # one line, as it is
    ],
)
def test_errors_are_a_line_and_a_status(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        console.command(fail)()
    assert caught.value.exit_code == status
    assert capsys.readouterr() == ("", message)


def test_what_is_no_complaint_passes() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    def leave() -> None:
        raise typer.Exit(7)

    with pytest.raises(ZeroDivisionError):
        console.command(broken)()
    with pytest.raises(typer.Exit) as caught:
        console.command(leave)()
    assert caught.value.exit_code == 7
    assert console.command(lambda: "done")() == "done"


def main(*arguments: str, patch: pytest.MonkeyPatch) -> int:
    patch.setattr(sys, "argv", ["senet", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(console._state, "debug", False)
    assert main("models", "resnet21", patch=monkeypatch) == 2
    assert "Traceback" not in capsys.readouterr().err
    for arguments in (["--debug", "models", "resnet21"], ["models", "resnet21", "--debug"]):
        assert main(*arguments, patch=monkeypatch) == 2
        assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert main("models", "resnet20", patch=monkeypatch) == 0


def test_as_a_module() -> None:
    command = [sys.executable, "-W", "error", "-m", "senet", "models", "resnet21"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: unknown network 'resnet21'")
    assert len(result.stderr.splitlines()) == 1


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
    progress.print("epoch 2")


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"loss": float("nan"), "errors": [float("-inf"), 1.5], "name": "NaN [b]:dog: " + "x" * 300}
    console.print_json(value)
    read = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert read == value | {"loss": None, "errors": [None, 1.5]}


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("--version").stdout == f"{__version__}\n"
    monkeypatch.setattr(sys, "argv", ["senet", "--version"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("senet", run_name="__main__")
    assert not caught.value.code
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("command", ["models", "insert", "train", "compare", "evaluate", "predict"])
def test_help(command: str) -> None:
    assert command in invoke("-h").stdout
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["evaluate"], ["models", "--nonsense"], []])
def test_bad_usage(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: senet" in result.output


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
    assert list(console.track(range(5), 5, "decode")) == list(range(5))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["decode: 1 of 5", "decode: 3 of 5"]


@pytest.mark.usefixtures("terminal")
def test_track_by_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.track(range(3), 3, "decode data[/a]")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "decode data[/a]" in err
    assert "3/3" in err
