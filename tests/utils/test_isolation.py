"""Modules of the working directory are never imported: a file `matplotlib.py` among the data is no library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from senet.study.running.local import start_process
from senet.utils.child import child_command
from senet.utils.isolation import clean_environment, package_path, python_module

# What the commands below import sooner or later.
NAMES = ("matplotlib", "rich", "typer", "torch", "numpy", "timm", "tomli_w", "filelock", "safetensors", "PIL", "ctypes")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with modules that leave a mark where they are imported."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'mark')!r}, 'a').write('{name} ')\nraise SystemExit(3)\n"
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}{package_path()}")  # with an empty entry, as shells often make it
    return tmp_path


def test_module_run_by_the_user_leaves_its_working_directory_alone(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", package_path())
    command = [sys.executable, "-m", "senet", "models", "resnet20", "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert not (trap / "mark").exists(), found.stderr
    assert found.returncode == 0, found.stderr
    assert '"name": "resnet20"' in found.stdout


@pytest.mark.slow
def test_children_of_a_study_leave_it_alone(trap: Path) -> None:
    from senet.study.plan.make_plan import make_plan
    from senet.study.plan.study import Study, StudyArm

    study = Study("own", "title", "", (StudyArm("a", "a", "resnet20"),), "")
    plan = make_plan(study, data="digits", recipe="digits", seeds=1, folder=trap / "study")
    command = plan.command(plan.runs[0])
    # The command of a run, with an option that ends it before it trains.
    process = start_process([*command[:5], "--show", "--recipe", "digits"], trap / "log", {})
    assert process.wait(120) == 0, (trap / "log").read_text()
    assert not (trap / "mark").exists()
    assert "epochs = " in (trap / "log").read_text()


def test_commands_for_children() -> None:
    assert python_module("a.b", ["c"]) == [sys.executable, "-P", "-m", "a.b", "c"]
    assert child_command(["x"])[1:4] == ["-P", "-m", "senet.utils.child"]


def test_a_run_of_a_study_begins_without_importing_pytorch() -> None:
    program = "import sys, senet.utils.child; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_empty_entries_of_the_path_are_the_working_directory() -> None:
    mixed = os.pathsep.join(["", "/a", "", "b"])
    assert clean_environment({"PYTHONPATH": mixed, "X": "y"}) == {
        "PYTHONPATH": os.pathsep.join(["/a", os.path.abspath("b")]),
        "X": "y",
    }
    assert clean_environment({"PYTHONPATH": os.pathsep}) == {}
