"""Keep the working directory out of Python's import path: a file `matplotlib.py` in a data folder is not a library.

`python -m`, `python -c` and Ray workers put the working directory first in `sys.path`. Child processes are started with
`-P`, which omits it; `python -m senet` removes it. Entries of PYTHONPATH are kept.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["clean_environment", "leave_working_directory", "package_path", "python_module"]


def python_module(module: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a module without the working directory in the import path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without empty entries in PYTHONPATH, each of which means the working directory.

    Relative entries become absolute: the child process may run in another folder.
    """
    cleaned = dict(environment)
    if "PYTHONPATH" in cleaned:
        entries = [os.path.abspath(entry) for entry in cleaned.pop("PYTHONPATH").split(os.pathsep) if entry]
        if entries:
            cleaned["PYTHONPATH"] = os.pathsep.join(entries)
    return cleaned


def leave_working_directory() -> None:
    """Remove the entry that `python -m` puts first in `sys.path`, unless senet is imported from there."""
    if sys.flags.safe_path or not sys.path:
        return
    first = os.path.realpath(sys.path[0] or os.curdir)
    if first == os.path.realpath(os.curdir) and first != os.path.realpath(package_path()):
        del sys.path[0]


def package_path() -> str:
    """Return the folder that senet is imported from."""
    return str(Path(__file__).resolve().parents[2])
