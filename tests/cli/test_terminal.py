"""The command line on a terminal: nothing of others is obeyed, and closed pipes end it in order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import senet
from senet.cli.common import console
from tests.cli.helpers import answer, invoke
from tests.images import write_classes
from tests.slow import fast_if

SENET = [sys.executable, "-m", "senet"]


@pytest.mark.parametrize("arguments", [["nonsense"], ["evaluate"], ["models", "--nonsense"], []])
def test_bad_usage(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: senet" in result.output
    assert not arguments or result.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--non\x1b[31msense"], r"No such option: --non\x1b[31msense"),
        (["predict", "a", "b", "--top", "[red]x\x1b[31m"], r"'--top'"),
        (["predict", "a", "b", "--top=[red]x"], "got '[red]x'"),
        (["bench", "resnet20", "--batch", "9" * 5000], "characters)"),
    ],
)
def test_bad_usage_names_the_value_and_obeys_no_escape(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "\x1b" not in result.output
    assert message in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="shells of POSIX")
@pytest.mark.parametrize(
    ("shell", "status"),
    [
        ("{senet} --help | head -1; exit ${{PIPESTATUS[0]}}", 141),
        ("{senet} paper --table 99 >&-", 2),
        ("{senet} paper --table 99 2>&-", 2),
        ("test -e /dev/full || exit 1; {senet} paper --json --table 2 >/dev/full", 1),
    ],
)
def test_pipes_that_are_closed(shell: str, status: int) -> None:
    text = shell.format(senet=" ".join(SENET))
    result = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False)
    assert result.returncode == status, result
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert len(result.stderr.splitlines()) <= 1


def test_a_name_that_is_no_utf8_is_shown(tmp_path: Path) -> None:
    result = subprocess.run([*SENET, "predict", b"bad\xff\x1b[31m.pth", "x"], capture_output=True, check=False)
    assert result.returncode == 2
    assert b"\x1b" not in result.stderr
    assert b"Traceback" not in result.stderr


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Path, Path]:
    """A network and data whose classes are called by escape sequences, markup and a line of an answer."""
    names = ["a\x1b[31m[red]\x9b1m", "b\x1b]0;owned\x07\u202e", "c[b]"]
    write_classes(tmp_path / "data" / "train", dict.fromkeys(names, 2))
    write_classes(tmp_path / "data" / "val", dict.fromkeys(names, 1))
    model = senet.create_model("se_resnet20", num_classes=3)
    torch.nn.init.zeros_(model.fc.weight)
    model.pretrained_cfg |= {"label_names": names}
    senet.save(model, tmp_path / "m\x1b[2J.safetensors")
    return tmp_path / "m\x1b[2J.safetensors", tmp_path / "data"


@pytest.mark.usefixtures("terminal", "no_pictures")
def test_escapes_of_names_do_not_reach_the_terminal(
    hostile: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key, value in (("_width", 80), ("no_color", True)):  # what is left of escapes is then of names alone
        monkeypatch.setattr(console.stdout, key, value)
    model, data = hostile
    commands = [
        ("evaluate", model, "--data", data),
        ("predict", model, data / "val", "--grid", tmp_path / "grid.png"),
        ("train", "--check", "--data", data),
        ("gates", model, "--data", data, "-o", tmp_path / "gates", "--no-ablation"),
        ("predict", model, tmp_path / "none\x1b[31m.png"),
    ]
    for command in commands:
        result = invoke(*command)
        assert result.exit_code == (2 if "none" in str(command[-1]) else 0), result.output
        assert not {"\x9b", "\x07", "\u202e"} & set(result.output)
        assert "\x1b[31m[red]" not in result.output
        assert "\x1b]0;owned" not in result.output
        assert "\x1b[2J" not in result.output
        assert not any("\x1b" in line for line in result.stdout.splitlines())
    assert "a\\x1b[31m[red]\\x9b1m" in invoke(*commands[0]).stdout
    found = answer("evaluate", model, "--data", data)
    assert [one["name"] for one in found["classes"]] == sorted(one["name"] for one in found["classes"])
    assert found["classes"][0]["name"] == "a\x1b[31m[red]\x9b1m"


NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,.]*\d|(?<![\w.])\d(?![\w.])")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "se_resnet20"],
        ["models", "resnet*"],
        ["insert", "resnet20", "--dry-run"],
        ["paper", "--table", "4"],
        ["evaluate", "{model}", "--data", "{data}"],
        ["predict", "{model}", "val"],
        ["gates", "{model}", "--data", "{data}", "-o", "{out}", "--resume", "--no-ablation"],
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else str(value),
)
@pytest.mark.parametrize("widths", [(40, 80), (60, 100)], ids=str)
@fast_if(lambda arguments, widths: arguments[1] != "resnet*" and 40 in widths)
def test_tables_on_a_narrow_terminal_have_every_number(
    arguments: list[str],
    widths: tuple[int, int],
    model_file: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(data)
    given = [one.format(model=model_file, data=data, out=tmp_path / "gates") for one in arguments]

    def numbers(columns: int) -> set[str]:
        monkeypatch.setattr(console.stdout, "_width", columns)
        result = invoke(*given)
        assert result.exit_code == 0, result.output
        text = re.sub(r"\(\d+ columns in .*\)|" + re.escape(str(tmp_path)) + r"\S*", "", result.stdout)
        return set(NUMBER.findall(text))

    expected = numbers(400)
    for width in widths:
        assert numbers(width) == expected, f"{width} columns"
