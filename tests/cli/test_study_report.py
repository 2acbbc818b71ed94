import json
from os import PathLike
from pathlib import Path
from typing import Any

import pytest

from senet.study.report import results
from tests.cli.helpers import answer, invoke, refuses
from tests.study.folders import by_arm, write_study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "cost_of", lambda run: results.Cost(run.parameters, 40_000_000, (32, 32)))
    errors = by_arm(plain=[20.0, 21.0, 22.5], standard=[15.0, 16.01, 17.49], pre=[21.0, 20.9, 22.0], post=[19.0])
    write_study(tmp_path / "s", errors)
    return tmp_path / "s"


def test_table_and_files(study: Path) -> None:
    result = invoke("study", "report", study)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].strip() == "Placement: resnet20 and se_resnet20"
    (row,) = [line for line in lines if line.startswith("standard ")]
    assert [cell.strip() for cell in row.split("  ") if cell.strip()][:3] == ["standard", "3", "16.17 ± 3.11"]
    assert "standard: lower error, significant with 3 seeds" in lines
    assert "1 of 2 arms differs significantly from 'no SE': lower error with standard." in lines
    assert "missing: identity, seed 0: not started" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"wrote {study}/report.html, ")
    assert {path.name for path in study.glob("report.*")} == {
        f"report.{kind}" for kind in ("html", "md", "png", "json")
    }


def test_json_is_the_file(study: Path) -> None:
    data = answer("study", "report", study, "--baseline", "standard")
    assert data == json.loads((study / "report.json").read_text())
    assert data["baseline"] == "standard"


@pytest.mark.parametrize("json_too", [False, True])
def test_a_report_is_printed_before_it_is_written(study: Path, monkeypatch: pytest.MonkeyPatch, json_too: bool) -> None:
    """The folder may be somebody else's: the whole answer comes out, then the error; and no file is left."""
    options = ["--json"] if json_too else []
    expected = invoke("study", "report", study, *options).stdout
    for path in study.glob("report.*"):
        path.unlink()

    def fails(path: str | PathLike[str], **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("senet.study.report.writing.atomic_path", fails)
    result = invoke("study", "report", study, *options)
    assert result.exit_code == 2
    assert result.stdout == expected
    assert "standard: lower error, significant with 3 seeds" in expected or json_too
    if json_too:
        arms = {arm["name"]: arm["mean"] for arm in json.loads(result.stdout)["arms"]}
        assert arms["standard"] == pytest.approx((15.0 + 16.01 + 17.49) / 3)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Permission denied" in line
    assert f"{study}/report.html" in line
    assert "wrote" not in result.stderr
    assert not list(study.glob("report.*"))


def test_what_is_refused(tmp_path: Path, study: Path) -> None:
    refuses("is not a study", "study", "report", tmp_path)
    refuses("unknown arm 'plane'; did you mean 'plain'", "study", "report", study, "--baseline", "plane")
    write_study(tmp_path / "empty", lambda run: None)
    refuses("has no complete run to report; plain with seed 0: not started", "study", "report", tmp_path / "empty")
    assert not list((tmp_path / "empty").glob("report.*"))
