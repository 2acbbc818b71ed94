"""Networks of a user's own code: `FILE.py:FUNCTION` runs the file, and calls a function that returns a network."""

import ast
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from senet.utils.errors import FileError, shown, unknown_name
from senet.utils.input_files import read_text, reading
from senet.utils.memory_errors import is_out_of_memory

__all__ = ["call_function", "file_of", "names_function"]

_GIVEN = re.compile(r"(?P<path>.+\.py)(?::(?P<name>[^:/\\]*))?")


def names_function(text: str) -> bool:
    """Return whether a network is given as FILE.py:FUNCTION; also without the function, which is an error."""
    return _GIVEN.fullmatch(text) is not None


def file_of(text: str) -> str:
    """Return the file of FILE.py:FUNCTION; any other text unchanged."""
    given = _GIVEN.fullmatch(text)
    return text if given is None else given["path"]


def call_function(text: str) -> Any:
    """Run a Python file, and return the network that one of its functions returns.

    The file runs as a module: code under `if __name__ == "__main__"` does not. Modules in its folder can be imported,
    as with `python FILE.py`. What it prints goes to standard error.

    Args:
        text: FILE.py:FUNCTION. The function, or class, takes no arguments; FUNCTION may also name a network.

    Raises:
        FileError: the file cannot be read, or it has no such function.
        ValueError: its code raises, the function needs arguments, or it returns no network.
    """
    from torch import nn

    given = _GIVEN.fullmatch(text)
    assert given is not None
    path, name = given["path"], given["name"]
    known = _names(path)
    if not name:
        example = f"{path}:{known[-1]}" if known else f"{path}:FUNCTION"
        raise FileError(f"{text!r} names no function: give the one that returns the network, such as {example}")
    with _importable(str(Path(path).resolve().parent)), redirect_stdout(sys.stderr):
        module = _run(path)
        if not hasattr(module, name):
            raise FileError(unknown_name(f"function of {path}", name, known))
        found = getattr(module, name)
        if isinstance(found, nn.Module):
            return found
        if not callable(found):
            raise ValueError(f"{text} is {shown(found)}: name a function that returns a torch.nn.Module")
        _check_signature(text, found)
        with _explained(text, path):
            model = found()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{text} returned {shown(model)}: return the network, a torch.nn.Module")
    return model


def _names(path: str) -> list[str]:
    """Return the names of a file's functions and classes, without running it.

    Raises:
        FileError: the file cannot be read, or is not Python.
    """
    if not Path(path).exists():
        raise FileError(f"no file at {path}")
    source = read_text(path, "Python file")
    with reading(path, message="{name} is not valid Python: {reason}"):
        tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Put a folder first on the import path; last afterwards, for late imports of the network's code."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _run(path: str) -> ModuleType:
    """Run a file as a module."""
    name = f"network_file_{Path(path).stem}"
    spec = spec_from_file_location(name, Path(path).resolve())
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look it up
    with _explained(path, path):
        spec.loader.exec_module(module)
    return module


def _check_signature(text: str, function: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a function of C has none
        return
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variable]
    if needed:
        raise ValueError(
            f"{text} needs arguments ({', '.join(needed)}): name a function without any, such as one that calls it"
        )


@contextmanager
def _explained(what: str, path: str) -> Iterator[None]:
    """Name the file and line where a user's code raises."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        own = str(Path(path).resolve())
        lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == own]
        where = f" in line {lines[-1]}" if lines else ""
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{what} raised {type(error).__name__}{where}{': ' if reason else ''}{reason}; --debug shows the traceback"
        ) from error
