"""Every block of code in the README and the documentation is run, or is in a table with the reason why not.

Commands of a page run in its own temporary folder, in the page's order (`commands.py`, `stand_ins.py`). The fast suite
runs the quick ones and parses all; the slow suite runs all. Tutorials run as a whole (`test_tutorials.py`).
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from senet.cli import app
from tests.cli.helpers import invoke
from tests.documentation import commands, stand_ins
from tests.documentation.blocks import ROOT, Block, blocks, blocks_in
from tests.documentation.python_stand_ins import STAND_INS
from tests.slow import fast_if
from tests.test_packaging import EXTRAS

# Blocks that hold no code: output, diagrams, files.
_TEXT = {"", "text", "toml"}
# Programs of every shell that tutorials call.
_TOOLS = {"grep", "ls", "tail"}
# Blocks of Python that take two seconds or more, by what fast tests have of them.
_SLOW = {
    "docs/performance.md-1": "tests/test_benchmark.py",
    "docs/models.md-1": "tests/costs/",
    "docs/insertion-examples.md-6": "tests/insertion/, with a smaller network",
    "docs/detection.md-5": "tests/models/detection/test_deployment.py",
}
_IN_SHELL = sorted({block.page for block in blocks("sh") if not block.in_tutorial})


def each(*languages: str, tutorials: bool = True) -> pytest.MarkDecorator:
    """Parametrize a test over the blocks of some languages, with or without those of tutorials."""
    chosen = [block for block in blocks(*languages) if tutorials or not block.in_tutorial]
    return pytest.mark.parametrize("block", chosen, ids=lambda block: block.id)


@each("python", tutorials=False)
@fast_if(lambda block: block.id not in _SLOW)
def test_python_runs_in_a_fresh_namespace(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples" / "insertion"), *sys.path])
    exec(compile(block.text, "<documentation>", "exec"), {"__name__": "documentation"})


@each("py")
def test_python_with_files_of_the_reader_is_valid(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.slow
@each("py")
def test_python_with_files_of_the_reader_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "documentation"} | STAND_INS[block.id](tmp_path, monkeypatch)
    exec(compile(block.text, "<documentation>", "exec"), namespace)


@each("sh")
def test_commands_are_understood(block: Block) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    group = typer.main.get_command(app)
    for program, *arguments in block.commands:
        line = " ".join((program, *arguments))
        if program == "torchrun":  # what it runs in each process
            program, *arguments = arguments[arguments.index("-m") + 1 :]
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
        elif program == "docker":  # tests/test_repository.py reads the Dockerfile
            declared = re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)
            assert arguments[0] in ("build", "run"), line
            assert set(re.findall(r"--build-arg (\w+)", line)) <= set(declared), line
            assert arguments[0] != "run" or arguments[-1] in group.commands, line
        else:
            assert block.in_tutorial, f"nothing here runs {line!r}"
            assert program in _TOOLS, line


@pytest.mark.parametrize("page", _IN_SHELL)
def test_quick_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("page", _IN_SHELL)
def test_all_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch, slow=True)


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, slow: bool) -> None:
    """Run the commands of a page in order; without `slow`, only those that are not in the table of slow ones."""
    every = [words for block in blocks("sh") if block.page == page for words in block.commands]
    chosen = [
        words
        for words in every
        if not commands.starts(words, list(commands.NOT_RUN)) and (slow or not commands.is_slow(words))
    ]
    if not chosen:
        return
    monkeypatch.chdir(folder)
    if page in commands.SHRUNK:
        stand_ins.shrink_networks(monkeypatch)
    stand_ins.lay_out(folder, "\n".join(" ".join(words) for words in chosen), monkeypatch)
    for words in chosen:
        run_command(commands.shortened(words))


def run_command(words: list[str]) -> None:
    """Run one command: `senet` in this process, anything else in its own."""
    program, *arguments = words
    line = " ".join(words)
    if program == "senet":
        result = invoke(*arguments)
        status, output = result.exit_code, result.output
        if arguments[0] == "bench" and "\nerror: inconclusive: " in output:  # a few rounds of tiny steps seldom agree
            status -= 1
    else:
        programs = Path(sys.executable).parent
        done = subprocess.run(
            [str(programs / program), *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
        status, output = done.returncode, done.stdout + done.stderr
    assert status == 0, f"{line}\n{output}"


def test_every_block_is_run_or_holds_no_code() -> None:
    languages = {block.language for block in blocks()}
    assert languages == {"python", "py", "sh", *_TEXT}
    assert {block.id for block in blocks("py")} == set(STAND_INS)
    assert {block.id for block in blocks("python")} >= set(_SLOW)


@pytest.mark.parametrize("table", [commands.NOT_RUN, commands.SLOW, commands.FAST], ids=["not run", "slow", "fast"])
def test_every_entry_of_a_table_is_of_a_command(table: dict[str, str]) -> None:
    lines = [" ".join(words) for block in blocks("sh") for words in block.commands]
    assert [entry for entry in table if not any(line.startswith(entry) for line in lines)] == []


def test_every_stand_in_is_of_a_command() -> None:
    text = "\n".join(block.text for block in blocks("sh"))
    assert [name for name in (*stand_ins._FILES, *stand_ins._TORCHVISION, *commands.DATA) if name not in text] == []


def test_blocks_that_would_be_missed_are_errors() -> None:
    assert [block.text for block in blocks_in("a\n```sh\nb\n```\n```\nc\n```\n", "page")] == ["b\n", "c\n"]
    for text in ("- a\n  ```sh\n  b\n  ```\n", "```sh\na\n", "~~~\na\n~~~\n"):
        with pytest.raises(ValueError, match="page: a fence is indented"):
            list(blocks_in(text, "page"))


def test_commands_are_shortened() -> None:
    line = "senet train se_resnet20 --data digits --recipe digits --set epochs=20 --set seed=1 --output runs/digits"
    words = commands.shortened(line.split())
    assert words[:5] == ["senet", "train", "se_resnet20", "--data", "classes"]
    assert words.count("epochs=1") == 1
    assert "epochs=20" not in words
    assert {"seed=1", "batch=4", "runs/digits"} <= set(words)
    words = commands.shortened(
        ["torchrun", "--standalone", "--nproc-per-node", "8", "-m", "senet", "train", "a", "--recipe", "b"]
    )
    assert words[:8] == ["torchrun", "--standalone", "--nproc-per-node", "2", "-m", "senet", "train", "a"]
    assert "epochs=1" in words
