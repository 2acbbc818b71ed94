"""What the README and the documentation show is run here, or at least understood by the command line."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from senet.cli import app
from tests.test_packaging import EXTRAS

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *(ROOT / "docs").rglob("*.md"),
]


def blocks(language: str) -> list[object]:
    found = []
    for page in sorted(PAGES):
        texts = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        name = page.relative_to(ROOT)
        found += [pytest.param(text, id=f"{name}-{number}") for number, text in enumerate(texts)]
    return found


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs_in_a_fresh_namespace(code: str) -> None:
    exec(compile(code, "<documentation>", "exec"), {"__name__": "documentation"})


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands_are_understood(text: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    group = typer.main.get_command(app)
    for line in text.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        if program == "torchrun":  # what it runs in each process
            program, *arguments = arguments[arguments.index("-m") + 1 :]
        if not program:
            continue
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", makefile, re.M), line
        elif program == "python":
            assert (ROOT / arguments[0]).is_file(), line
        elif program.endswith("senet"):
            command = group.commands[arguments[0]]
            command.make_context(arguments[0], arguments[1:])  # parses, and raises on what it does not know
        elif program == "pip":  # an installation is tested with the package; its extras have to exist
            extras = re.findall(r"\[(\w+)\]", line)
            assert arguments[0] == "install", line
            assert set(extras) <= {*EXTRAS, "all"}, line
        else:
            pytest.fail(f"nothing here runs {line!r}")
