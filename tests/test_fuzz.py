"""The fuzz script: what it counts as a fault, and a few of its cases."""

import time
from collections import Counter
from pathlib import Path

import pytest

import senet
from tests import fuzz
from tests.fuzz_cases import Case, command_lines
from tests.images import pack, picture, write_classes


@pytest.mark.parametrize(
    ("valid", "status", "output", "fault"),
    [
        (False, 2, "error: unknown network 'x'\n", None),
        (False, 0, "answer\n", "invalid accepted"),
        (True, 0, "answer\n", None),
        (True, 2, "error: no\n", "valid refused"),
        (None, 1, "error: no\n", None),
        (False, None, "", "hangs"),
        (False, 1, "Traceback (most recent call last):\n  ...", "tracebacks"),
        (False, 1, "error: KeyError: 'x'; --debug shows the traceback\n", "tracebacks"),
        (False, 3, "error: no\n", "other"),
        (False, -11, "", "other"),
        (None, 143, "error: no\n", None),
        (False, 2, "it does not work\n", "other"),
        (False, 2, "error: \x1b[31mred\n", "other"),
    ],
)
def test_faults(valid: bool | None, status: int | None, output: str, fault: str | None) -> None:
    judged = fuzz.judge(Case("", ("models",), valid), status, output)
    assert (judged and judged[0]) == fault


def test_a_hang_is_ended() -> None:
    with pytest.raises(fuzz.Hang), fuzz.limited(0.01):
        time.sleep(30)


def test_the_status_is_that_of_the_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.show({"models": Counter(cases=3)}, 3) == 0
    assert fuzz.show({"models": Counter(cases=3)}, 4) == 1  # some were skipped
    assert fuzz.show({"models": Counter({"cases": 3, "hangs": 1})}, 3) == 1
    assert "hangs" in capsys.readouterr().out


@pytest.fixture
def valid(tmp_path: Path) -> dict[str, Path]:
    names = ("model", "plain", "timm", "run", "image", "weights", "classes", "gates", "recipe")
    found = {name: tmp_path / "none" / name for name in names}
    write_classes(tmp_path / "images", dict.fromkeys(("cat", "dog"), 2))
    picture(0).save(tmp_path / "image.png")
    found |= {"tar": pack(tmp_path / "images"), "image": tmp_path / "image.png", "model": tmp_path / "m.safetensors"}
    senet.save(senet.create_model("se_resnet20", num_classes=2), found["model"])
    return found


def test_command_lines_are_over_all_commands_and_of_both_kinds(valid: dict[str, Path], tmp_path: Path) -> None:
    cases = command_lines(valid, tmp_path, seed=1, count=10_000)
    assert len(cases) >= 600
    assert len({case.arguments for case in cases}) > 0.95 * len(cases)
    commands = Counter(case.arguments[0] for case in cases if case.valid is False and case.arguments)
    kept = Counter(case.arguments[0] for case in cases if case.valid and case.arguments)
    assert min(commands[name] for name in kept) >= 5
    assert len(kept) >= 13
    assert command_lines(valid, tmp_path, seed=1, count=300) != command_lines(valid, tmp_path, seed=2, count=300)
    assert len(command_lines(valid, tmp_path, seed=1, count=300)) == 300


def test_some_of_its_cases(valid: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fuzz, "PROCESSES", 0)
    cases = command_lines(valid, tmp_path, seed=0, count=10_000)
    some = [case for case in cases if case.valid is False][::40]
    some += [case for case in cases if case.valid and case.arguments[0] in ("models", "insert")]
    found = fuzz.run_cases([("all", case) for case in some])
    assert found["all"] == Counter(cases=len(some))
