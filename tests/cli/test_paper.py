from pathlib import Path

import pytest

from senet.paper import ENTRIES, TITLES
from senet.study.report import results
from senet.study.reproduction.commands import study_command
from tests.cli.helpers import answer, invoke, refuses
from tests.study.folders import by_arm, write_study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "cost_of", lambda run: results.Cost(run.parameters, None, (32, 32)))
    errors = by_arm(plain=[20.0, 21.0, 22.5], standard=[15.0, 16.01, 17.49], pre=[21.0, 20.9, 22.0])
    write_study(tmp_path / "s", errors)
    return tmp_path / "s"


def test_all_tables_without_runs() -> None:
    result = invoke("paper")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == f"Of {len(ENTRIES)} rows: 75 missing, 3 that senet cannot measure."
    assert sum(line.startswith("Table ") for line in lines) == sum(key.isdigit() for key in TITLES)
    # In one line, so that they can be copied.
    assert f"  {study_command('13')}" in lines
    assert any(line.startswith("  senet train se_shake_even_29_2x4x64d ") and "--output" in line for line in lines)


def test_one_table_with_a_related_study(study: Path) -> None:
    result = invoke("paper", study, "--table", "14")
    assert result.exit_code == 0, result.stderr
    assert [line.strip() for line in result.stdout.splitlines() if line.startswith("Table")] == ["Table 14: placement"]
    assert "related to standard: se_resnet20 on " in result.stdout
    assert "to no SE, significant" in result.stdout
    assert "to no SE, not significant" in result.stdout


def test_json(study: Path) -> None:
    rows = answer("paper", study, "--table", "14", "--table", "15")
    assert [(row["table"], row["label"]) for row in rows] == [
        *(("14", label) for label in ("standard", "PRE", "POST", "Identity")),
        ("15", "SE_3x3"),
    ]
    assert rows[0]["related"][0]["seeds"] == 3
    assert rows[0]["status"] == "related"
    assert rows[4]["commands"][0].startswith("senet train se_resnet50 --data IMAGENET")


def test_the_page(tmp_path: Path, study: Path) -> None:
    result = invoke("paper", study, "--write", tmp_path / "mine.md")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"wrote {tmp_path}/mine.md\n"
    assert "related to standard: se\\_resnet20" in (tmp_path / "mine.md").read_text()


def test_what_cannot_be_used_is_named(tmp_path: Path, study: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "run.json").write_text("{}")
    result = invoke("paper", tmp_path, "--table", "14")
    assert result.exit_code == 0
    assert f"left out: {tmp_path}/r is not a run" in result.stderr


def test_what_is_refused(tmp_path: Path) -> None:
    refuses("unknown table '17'", "paper", "--table", "17")
    refuses(r"invalid --write 'x\.html': the name must end in \.md", "paper", "--write", "x.html")
    refuses("leave out --table and --json", "paper", "--write", "x.md", "--json")
    refuses("there is no folder .*/none", "paper", tmp_path / "none")
