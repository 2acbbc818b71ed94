"""Tables on terminals of every width: no number is cut, and no column is missing."""

import re

import pytest
from rich.cells import cell_len

from senet.cli.common import console
from senet.cli.common.tables import fitted

COLUMNS = ["SE module", "what becomes of it", "parameters", "multiply-adds", "change", "猫"]
ROWS = [
    ["layer1.0.bn3.se", "folded, cannot vary", "1,579,392", "12,345,678,901", "-0.12 (-0.5 to +0.23)", "1e-05"],
    ["layer4.22.bn3.se", "kept: at most 0.76 points, 0.2 allowed", "23", "1", "+0.1", "-"],
    ["x" * 60, "", "", "", "", ""],
]
NUMBER = re.compile(r"[-+]?\d[\d,.]*(?:e[-+]\d+)?")


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("text", [1, 2])
def test_every_number_is_whole_and_there(width: int, text: int) -> None:
    lines = [line.plain for line in fitted("title", COLUMNS, ROWS, text, width)]
    assert lines[0] == "title"
    body = lines[1:] if "parts" not in lines[1] else lines[2:]
    known = numbers(" ".join(" ".join(row) for row in ROWS))
    found = numbers("\n".join(body))
    assert set(found) == set(known)
    together = "".join("".join(line.split()) for line in body)
    for name in COLUMNS:
        assert name.split()[0] in together
    # Only what cannot be broken is longer than a line: the long name, and a label before a long number.
    assert all(cell_len(line) <= max(width, 62) for line in body)
    if width >= 60:
        assert all(cell_len(line) <= width or "x" * 60 in line for line in body)


def test_parts_say_that_they_are_parts_and_repeat_the_label() -> None:
    lines = [line.plain for line in fitted("", COLUMNS, ROWS[:2], 1, 50)]
    assert re.fullmatch(r"\(6 columns in \d parts: 50 characters hold no more\)", lines[0])
    assert sum("bn3.se" in line for line in lines) == 2 * int(lines[0].split(" in ")[1].split()[0])
    assert next(fitted("", COLUMNS, ROWS[:2], 1, 200)).plain.startswith("SE module")


def test_cells_are_one_line_and_harmless(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.stdout, "_width", 80)
    console.table("data\x1b[2J", ["class", "images"], [["cat\ntop-1 error 0.00\x1b[31m[red]", 1_579_392]])
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "data\\x1b[2J",
        "class                                  images",
        "cat\\ntop-1 error 0.00\\x1b[31m[red]  1,579,392",
    ]


def test_a_name_without_end_loses_its_middle() -> None:
    """A model file may name a class with ten million letters, which take a quarter of a minute to print."""
    lines = [line.plain for line in fitted("", ["class", "images"], [["x" * 10**7, "1,234"]], 1, 80)]
    assert sum(map(len, lines)) < 1000
    shown = " ".join(" ".join(lines).split())
    assert "(10,000,000" in shown
    assert "1,234" in shown
