"""Run the code of tutorials, and write its output and pictures into them.

python docs/run_tutorials.py docs/tutorials/first-network.md

The blocks `python` and `sh` of a page run in order in a temporary folder, which has `examples` of this repository. The
Python blocks share one namespace; commands end at the first that fails. What a block prints, without standard error,
is written below it, as a block `text` with the title "Output". A picture `PAGE/NAME.png` of a page is the file
NAME.png that the page wrote, and `PAGE/NAME-dark.png` the same figure for dark pages. A page whose code fails is left
unchanged.
"""

import argparse
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'^```(python|sh)\n(.*?)^```\n(?:\n```text title="Output"\n.*?^```\n)?', re.M | re.S)
PICTURE = re.compile(r"^!\[[^\]]*\]\(([^)#]+\.png)(?:#[\w-]+)?\)", re.M)
DARK = "-dark"


class BlockError(Exception):
    """A block of a page failed; the message has its output."""


def run_page(page: Path) -> tuple[str, dict[Path, bytes]]:
    """Run the blocks of a page in a temporary folder.

    Returns:
        The page with the output of each block, and the content of its pictures by their path in the repository.

    Raises:
        BlockError: a block failed, or no block wrote a picture of the page.
    """
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as dark, contextlib.chdir(name):
        folder = Path(name)
        (folder / "examples").symlink_to(ROOT / "examples")
        namespace: dict[str, Any] = {"__name__": "__main__"}
        # The width of tables, and where figures are drawn again for dark pages.
        with mock.patch.dict(os.environ, {"COLUMNS": "100", "SENET_DARK_FIGURES": dark}):
            text = BLOCK.sub(lambda found: _with_output(found[1], found[2], namespace), text)
        return text, {page.parent / path: _picture(folder, Path(dark), path) for path in PICTURE.findall(text)}


def _with_output(language: str, code: str, namespace: dict[str, Any]) -> str:
    output = _run_python(code, namespace) if language == "python" else _run_shell(code)
    output = output.replace(f"{Path.cwd()}{os.sep}", "")  # absolute paths
    lines = "\n".join(line.rstrip() for line in output.strip("\n").splitlines())
    shown = f'\n```text title="Output"\n{lines}\n```\n' if lines else ""
    return f"```{language}\n{code}```\n{shown}"


def _run_python(code: str, namespace: dict[str, Any]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        try:
            exec(compile(code, "<tutorial>", "exec"), namespace)
        except Exception as error:
            raise BlockError(f"{code}\n{stream.getvalue()}{traceback.format_exc()}") from error
    return stream.getvalue()


def _run_shell(code: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where `senet` is installed
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
        check=False,
    )
    if done.returncode:
        raise BlockError(f"{code}\n{done.stdout}{done.stderr}exit status {done.returncode}")
    return done.stdout


def _picture(folder: Path, dark: Path, path: str) -> bytes:
    stem = Path(path).stem
    name = f"{stem.removesuffix(DARK)}.png"
    found = list((dark if stem.endswith(DARK) else folder).rglob(name))
    if len(found) != 1:
        raise BlockError(f"{path}: {len(found)} files {name} were written, expected one")
    return found[0].read_bytes()


def write_page(page: Path) -> None:
    """Run a page, and write its outputs and pictures; its folder then has these pictures only."""
    text, pictures = run_page(page)
    shutil.rmtree(page.with_suffix(""), ignore_errors=True)
    for path, content in pictures.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", nargs="+", type=Path, help="a page with code")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported: results depend on it
    for page in parser.parse_args().page:
        print(f"{page} ...", flush=True)
        try:
            write_page(page.resolve())
        except BlockError as error:
            sys.exit(f"{page}: this block failed:\n\n{error}")


if __name__ == "__main__":
    main()
