"""Every exception is a line and a status: 2 before work, 1 during it, 128 + N by signal N."""

import os
import runpy
import signal
import subprocess
import sys
import time

import pytest
import torch
import typer

from senet import cli
from senet.cli.common import boundary
from senet.utils.errors import DataError, ModelFileError, TrainingError


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("no"), 2, "error: no\n"),
        (TypeError("no"), 2, "error: no\n"),
        (ImportError("needs protobuf: pip install protobuf"), 2, "error: needs protobuf: pip install protobuf\n"),
        (DataError("no"), 2, "error: no\n"),
        (ModelFileError("no"), 2, "error: no\n"),
        (IsADirectoryError(21, "Is a directory", "runs"), 2, "error: [Errno 21] Is a directory: 'runs'\n"),
        (OSError(36, "File name too long", "x"), 2, "error: [Errno 36] File name too long: 'x'\n"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (TrainingError("no"), 1, "error: no\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (ZeroDivisionError("division"), 1, "error: ZeroDivisionError: division; --debug shows the traceback\n"),
        (KeyError("epochs"), 1, "error: KeyError: 'epochs'; --debug shows the traceback\n"),
        (RuntimeError("shapes\nof layers"), 1, "error: RuntimeError: shapes; --debug shows the traceback\n"),
        (RecursionError("depth"), 2, "error: a file or value is nested too deeply (depth); --debug shows where\n"),
        (OverflowError("int"), 2, "error: a number is too large (int); --debug shows where\n"),
        (ValueError("[bold]:dog: " + 300 * "x"), 2, f"error: [bold]:dog: {300 * 'x'}\n"),  # one line, as it is
        (ValueError("\x1b]0;owned\x07 \x1b[31mred\x9b1m"), 2, "error: \\x1b]0;owned\\x07 \\x1b[31mred\\x9b1m\n"),
        (
            ValueError("the class 'a\nerror: b'"),
            2,
            "error: the class 'a\\nerror: b'\n",
        ),  # a line, whatever its name has
        (ValueError("9" * 5000), 2, f"error: {'9' * 60}...{'9' * 20} (5,000 characters)\n"),
    ],
)
def test_errors_are_a_line_and_a_status(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        boundary.command(fail)()
    assert caught.value.exit_code == status
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_memory_that_is_not_there_is_named_with_a_remedy(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert boundary.explain(error)[0] == 1
    assert "out of memory" in boundary.explain(error)[1]
    assert "smaller batch" in boundary.explain(error)[1]


def test_what_is_no_error_passes() -> None:
    def leave() -> None:
        raise typer.Exit(7)

    with pytest.raises(typer.Exit) as caught:
        boundary.command(leave)()
    assert caught.value.exit_code == 7
    assert boundary.command(lambda: "done")() == "done"


def main(*arguments: str, patch: pytest.MonkeyPatch) -> int:
    patch.setattr(sys, "argv", ["senet", *arguments])
    patch.setattr(boundary, "prepare_process", lambda: None)  # this process is pytest's
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(boundary._state, "debug", False)
    assert main("models", "resnet21", patch=monkeypatch) == 2
    assert "Traceback" not in capsys.readouterr().err
    for arguments in (["--debug", "models", "resnet21"], ["models", "resnet21", "--debug"]):
        monkeypatch.setitem(boundary._state, "debug", False)
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


# What a process prints of itself, of libraries, and of senet, and how it ends by a signal.
PROGRAM = """
import logging, sys, time, warnings
import senet.cli
from senet.cli.common import boundary
def command():
    warnings.warn("of a library", stacklevel=1)
    logging.getLogger("torch.utils.cpp_extension").warning("No CUDA runtime is found, using CUDA_HOME")
    warnings.warn_explicit("no compiler", UserWarning, senet.cli.__file__, 1)
    print("ready", flush=True)
    try:
        time.sleep(0)
    finally:
        print("cleaned", flush=True)
senet.cli.app.command()(boundary.command(command))
senet.cli.main()
"""


@pytest.mark.parametrize(
    ("options", "debug", "shown"),
    [
        ([], [], ("no compiler",)),
        ([], ["--debug"], ("library", "CUDA", "no compiler")),
        (["-W", "error"], [], ("library",)),
    ],
)
def test_warnings_of_libraries_stay_inside(options: list[str], debug: list[str], shown: tuple[str, ...]) -> None:
    command = [sys.executable, *options, "-c", PROGRAM, "command", *debug]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == ("error" in options)  # a warning is an exception then
    for text in ("library", "CUDA", "no compiler"):
        assert (text in result.stderr) == (text in shown), result.stderr
    assert debug or options or result.stderr == "warning: no compiler\n"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_signal_ends_a_command_in_order() -> None:
    program = PROGRAM.replace("sleep(0)", "sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", program, "command"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "cleaned\n"
    assert process.returncode == 128 + signal.SIGTERM


def test_version_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["senet", "--version"])
    monkeypatch.setattr(boundary, "prepare_process", lambda: None)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("senet", run_name="__main__")
    assert not caught.value.code
