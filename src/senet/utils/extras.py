"""Optional dependencies: their imports, install commands, and what is missing."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from senet.utils.errors import first_line

__all__ = ["install_command", "missing_packages", "optional_import"]


@contextmanager
def optional_import(extra: str, message: str, error: type[Exception] = ValueError) -> Iterator[None]:
    """Explain an ImportError in a block that imports optional packages.

    Args:
        extra: the extra that requires the packages, such as "demo".
        message: what needs which package; the reason and the command that installs it follow.
        error: class of the raised error.

    Raises:
        Exception: an instance of `error`; a package is not installed, or cannot be imported.
    """
    try:
        yield
    except ImportError as raised:
        raise error(f"{message} ({first_line(raised)}): {install_command(extra)}") from raised


def install_command(extra: str) -> str:
    """Return a pip command that installs the packages of an extra.

    senet is not on PyPI, so `pip install 'senet[demo]'` finds nothing. In a checkout the command installs the
    checkout's extra, and elsewhere the packages that the extra requires.

    Args:
        extra: a key of `[project.optional-dependencies]`, such as "demo".
    """
    checkout = _checkout()
    if checkout is None:
        return f"pip install {' '.join(map(shlex.quote, _requirements(extra)))}"
    here = "." if checkout == Path.cwd() else str(checkout)
    return f"pip install -e {shlex.quote(f'{here}[{extra}]')}"


def missing_packages() -> dict[str, list[str]]:
    """Return the packages that are not installed, by the extra that requires them; the extras are those of "all"."""
    try:
        known = metadata("senet").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        known = []
    every = set(_requirements("all"))
    required = {extra: _requirements(extra) for extra in known if extra != "all"}
    return {
        extra: [name for text in texts if not _is_installed(name := re.split(r"[^\w.-]", text)[0])]
        for extra, texts in required.items()
        if every.issuperset(texts)
    }


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _checkout() -> Path | None:
    """Return the root of the checkout that holds this module in `src/senet/`, if there is one."""
    root = Path(__file__).resolve().parents[3]
    try:
        return root if 'name = "senet"' in (root / "pyproject.toml").read_text(encoding="utf-8") else None
    except (OSError, UnicodeDecodeError):
        return None


def _requirements(extra: str) -> list[str]:
    """Return the requirements of an extra from the installed metadata, such as ["scikit-learn>=1.5"]."""
    marker = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
    try:
        found = [text.partition(";") for text in requires("senet") or []]
    except PackageNotFoundError:  # a copy of the source, which says nothing of versions
        found = []
    return [name.strip() for name, _, markers in found if marker.search(markers)] or [f"senet[{extra}]"]
