"""The boundary of the command line: every exception becomes one line on standard error and an exit status.

2 is invalid usage or input, found before work starts; 1 is a failure during work; 128 + N is the end by signal N. The
exceptions of `senet.utils.errors` have their status as an attribute, among them one of its own: 75 (EX_TEMPFAIL), for a
run whose folder another process is writing to. The same command can succeed later.
"""

import errno
import functools
import inspect
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import zip_longest
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

import typer
from typer.core import TyperGroup
from typer.models import OptionInfo

from senet.cli.common.console import note
from senet.utils.arguments import as_options
from senet.utils.choices import literal_values
from senet.utils.errors import DataWarning, ReportedByPeerError, SenetError, TrainingError, first_line, unknown_name
from senet.utils.memory_errors import is_out_of_memory, memory_sizes
from senet.utils.notices import listening
from senet.utils.ranks import is_first
from senet.utils.renamed import RENAMED_OPTIONS
from senet.utils.text import printable

__all__ = ["Group", "command", "prepare_process", "show_tracebacks", "use_batch"]

P = ParamSpec("P")
R = TypeVar("R")

_state = {"debug": False}

# Images per batch of the command that is running, for messages; "" if --batch was not given, None without the option.
_batch: ContextVar[int | str | None] = ContextVar("batch", default=None)

# Typer's usage errors. Typer vendors click's classes, or imports them.
_ClickException: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)

# Arguments of functions whose options have another name: the parameter of the command.
_ARGUMENTS = {"calibration": "calibrate", "entry": "weights_entry", "example": "input_"}

# System errors during writes, which no command line can prevent.
_DURING_WORK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def show_tracebacks(on: bool) -> None:
    """Choose whether errors show their traceback."""
    _state["debug"] = on


def use_batch(batch: int) -> None:
    """Note the images per batch where a command finds its default, for messages."""
    _batch.set(batch)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command: report exceptions as one line on standard error and an exit status."""
    options = _options(function)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        batch: Any = kwargs.get("batch")
        token = _batch.set("" if batch is None and "batch" in kwargs else batch)
        try:
            with _warnings_as_notes(), listening(_first_note), as_options(options):
                return function(*args, **kwargs)
        except (typer.Exit, typer.Abort, _ClickException):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(_report(error, batch=_batch.get())) from error
        finally:
            _batch.reset(token)

    return run


def _options(function: Callable[..., Any]) -> dict[str, str]:
    """Return the options of a command, by the names of the arguments in Python that they set."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        for one in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(one, OptionInfo):
                # In an annotation, Typer holds the first name of an option as its default.
                texts = [text for text in (one.default, *(one.param_decls or ())) if isinstance(text, str)]
                names = [text.partition("/")[0] for text in texts if text.startswith("--")]
                found[name] = names[0] if names else f"--{name.strip('_').replace('_', '-')}"
    return found | {name: found[given] for name, given in _ARGUMENTS.items() if given in found}


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print each warning about data as a line on standard error, once across ranks."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
            if not issubclass(category, DataWarning):
                others(message, category, filename, lineno, *more)
                return
            if is_first():
                note(f"warning: {printable(str(message), one_line=True)}", style="yellow")

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _first_note(line: str) -> None:
    """Print a line on standard error, on rank 0 only."""
    if os.environ.get("RANK", "0") == "0":
        note(line)


class Group(TyperGroup):
    """The command group: accepts `--debug` anywhere, and reports the errors of Typer itself."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; in standalone mode, exit with its status."""
        given = list(sys.argv[1:] if args is None else args)
        if "--debug" in given:
            show_tracebacks(True)
            given = [argument for argument in given if argument != "--debug"]
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, False, windows_expand_args, **extra)
        try:
            status = super().main(given, prog_name, complete_var, False, windows_expand_args, **extra)
        except SystemExit as error:
            # Typer exits with 1 if its help goes to a closed pipe.
            status = 128 + signal.SIGPIPE if isinstance(error.__context__, BrokenPipeError) else error.code
        except (Exception, KeyboardInterrupt) as error:
            status = _report(error, given)
        return sys.exit(_flush(status if isinstance(status, int) else 0))


def _report(error: BaseException, arguments: Sequence[str] = (), batch: object = None) -> int:
    """Print an error as one line, after its traceback with --debug.

    Args:
        error: any exception.
        arguments: the command line, to find the value of an option that Typer does not report.
        batch: value of the command's --batch option; "" if it was not given, None if there is no such option.

    Returns:
        The exit status.
    """
    with suppress(OSError):  # standard error is closed, or on a full disk
        if _state["debug"]:
            traceback.print_exception(error)
        if isinstance(error, _ClickException):
            return _report_usage(error, arguments)
        status, message = explain(error, batch)
        if message:
            # Escape newlines in names from files: the text after them would look like senet's own output.
            note(f"error: {printable(message, one_line=True)}", style="bold red")
        return status
    return explain(error)[0]


def explain(error: BaseException, batch: object = None) -> tuple[int, str]:
    """Return the exit status and message of an exception; the message is empty if its reader is gone.

    Args:
        error: any exception.
        batch: value of the command's --batch option; "" if it was not given, None if there is no such option.
    """
    message = str(error) or type(error).__name__
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return 128 + signal.SIGINT, "interrupted"
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE, ""
    if isinstance(error, ReportedByPeerError):
        return explain(error.error, batch)[0], ""
    if isinstance(error, TrainingError):  # whose message may quote an allocator, and has its own remedy
        return error.exit_status, message
    if is_out_of_memory(error):
        smaller = "batch" if batch is None else "--batch"
        given = "" if batch in (None, "") else f" with --batch {batch}"
        remedy = f"use a smaller {smaller}, smaller images or a smaller network"
        return 1, f"out of memory{given}: {remedy}{memory_sizes(error)}"
    if isinstance(error, RecursionError):
        return 2, f"a file or value is nested too deeply ({message}); --debug shows where"
    if isinstance(error, OverflowError):
        return 2, f"a number is too large ({message}); --debug shows where"
    if isinstance(error, OSError):
        return (1 if error.errno in _DURING_WORK else 2), message
    if isinstance(error, SenetError):
        return error.exit_status, message
    if isinstance(error, ValueError | TypeError | ImportError):
        return 2, message
    kind = type(error).__name__
    return 1, f"{kind}: {first_line(error)}; --debug shows the traceback"  # type: ignore[arg-type]


def _report_usage(error: Any, arguments: Sequence[str]) -> int:
    """Print a usage error. Typer's own panel would interpret markup and escape sequences."""
    context = getattr(error, "ctx", None)
    parameter: Any = getattr(error, "param", None)
    choices, given = _choices_of(context, parameter), _value_of(parameter, arguments)
    if choices and given is not None and given not in choices:
        note(f"error: {unknown_name(parameter.opts[0], given, choices)}", style="bold red")
        return int(error.exit_code)
    if type(error).__name__ != "NoArgsIsHelpError":  # its help is already printed
        if context is not None:
            note(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.")
        message = " ".join(error.format_message().split())
        got = f"; got {given!r}" if given is not None and given not in message else ""
        option = str(getattr(error, "option_name", "")).removeprefix("--")
        renamed = f" It is --{RENAMED_OPTIONS[option]} now." if option in RENAMED_OPTIONS else ""
        note(f"error: {message}{got}{renamed}", style="bold red")
    return int(error.exit_code)


def _choices_of(context: Any, parameter: Any) -> tuple[Any, ...]:
    """Return the choices of an option by the annotation of its command; none where it takes other values."""
    callback = getattr(getattr(context, "command", None), "callback", None)
    return literal_values(getattr(callback, "__annotations__", {}).get(getattr(parameter, "name", None)))


def _value_of(parameter: Any, arguments: Sequence[str]) -> str | None:
    """Return the value of an option on the command line."""
    names = [name for name in getattr(parameter, "opts", ()) if name.startswith("-")]
    for argument, following in zip_longest(arguments, arguments[1:]):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else following
    return None


def _flush(status: int) -> int:
    """Flush standard output. Python would do so at exit, and print a traceback on failure."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):  # a test's file object has no descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or _report(error)
    return status


def prepare_process() -> None:
    """Prepare a process that only runs senet: handle signals, and hide the warnings of libraries.

    `--debug` or Python's `-W` shows these warnings.
    """
    for number in (signal.SIGTERM, signal.SIGHUP) if os.name == "posix" else ():
        if signal.getsignal(number) is signal.SIG_DFL:  # keep nohup's
            signal.signal(number, _end)
    if "--debug" in sys.argv or sys.warnoptions:
        return
    import logging

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.disable(logging.WARNING)
    warnings.showwarning = _show_warning


def _end(number: int, frame: object) -> None:
    """Exit through all `finally` blocks, which remove temporary files and end child processes."""
    raise SystemExit(128 + number)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print senet's own warnings as one line; ignore others, about which a user can do nothing."""
    if str(Path(__file__).resolve().parents[2]) in os.path.abspath(filename):
        note(f"warning: {message}", style="yellow")
