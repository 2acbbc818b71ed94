"""Keep the working directory off Python's path: a file `matplotlib.py` in a folder of data is no library.

`python -m` and `python -c` put the working directory first on the path, and so do workers of Ray. Child processes are
started with `-P`, which leaves it out; `python -m senet` itself takes it off again. A path that the user gives as
PYTHONPATH stays.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["clean_environment", "leave_working_directory", "package_path", "python_module"]


def python_module(module: str, arguments: Sequence[str] = ()) -> list[str]:
    """The command that runs a module in a Python that does not import from its working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for Python without empty entries of PYTHONPATH, each of which is the working directory.

    Relative entries become absolute: the child may run elsewhere.
    """
    cleaned = dict(environment)
    if "PYTHONPATH" in cleaned:
        entries = [os.path.abspath(entry) for entry in cleaned.pop("PYTHONPATH").split(os.pathsep) if entry]
        if entries:
            cleaned["PYTHONPATH"] = os.pathsep.join(entries)
    return cleaned


def leave_working_directory() -> None:
    """Take the entry off `sys.path` that `python -m` puts first, unless senet itself is imported from there."""
    if sys.flags.safe_path or not sys.path:
        return
    first = os.path.realpath(sys.path[0] or os.curdir)
    if first == os.path.realpath(os.curdir) and first != os.path.realpath(package_path()):
        del sys.path[0]


def package_path() -> str:
    """The folder that senet is imported from."""
    return str(Path(__file__).resolve().parents[2])
