"""Install commands for optional dependencies."""

import re
import shlex
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

__all__ = ["install_command"]


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
