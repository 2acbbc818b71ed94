import sys
from pathlib import Path

import pytest
import scipy.stats
from PIL import Image

from tests.cli.helpers import answer, invoke, refuses
from tests.runs.test_comparison import write_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two seeds of se_resnet20, the second of them one epoch short, and one of resnet20."""
    return [
        write_run(tmp_path / "a", [40, 30, 12, 20]),
        write_run(tmp_path / "b", [44, 10, 24], seed=1),
        write_run(tmp_path / "c[a]", [50, 40, 30, 35], {"network": "resnet20", "parameters": 269_722}),
    ]


def test_table_and_picture(tmp_path: Path, runs: list[Path]) -> None:
    result = invoke("compare", *runs, "-o", tmp_path / "curves.png")
    assert result.exit_code == 0, result.stderr
    heading, *rows = result.stdout.splitlines()[:3]
    assert heading.split("  ")[0] == "arm"
    half = scipy.stats.sem([12, 24]) * scipy.stats.t.ppf(0.975, 1)
    first, second = ([cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows)
    # Seeds, epochs, parameters, the last epoch that both have, the best of each (12 and 10), seconds.
    assert first == ["se_resnet20", "2", "3", "272,095", f"18.00 ± {half:.2f}", "11.00 ± 12.71", "12"]
    assert second == ["resnet20", "1", "4", "269,722", "35.00", "30.00", "12.5"]
    assert "95 % t interval" in result.stdout
    assert result.stderr.splitlines() == [
        f"se_resnet20: 3 of 4 epochs, the number in {runs[1]}",
        f"drew {tmp_path}/curves.png",
    ]
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"


def test_json_says_the_same(tmp_path: Path, runs: list[Path]) -> None:
    found = answer("compare", *runs, "-o", tmp_path / "curves.png", "--by", "network")
    assert (found["output"], found["validation"]) == (str(tmp_path / "curves.png"), "cifar")
    se, plain = found["arms"]
    assert se["runs"] == [str(path) for path in runs[:2]]
    assert se["last_epoch"] == {
        "top1_error": 18.0,
        "interval": pytest.approx(scipy.stats.sem([12, 24]) * scipy.stats.t.ppf(0.975, 1)),
    }
    assert plain == {
        "arm": "resnet20",
        "runs": [str(runs[2])],
        "seeds": [0],
        "epochs": 4,
        "parameters": 269_722,
        "last_epoch": {"top1_error": 35.0, "interval": None},
        "best_epoch": {"top1_error": 30.0, "interval": None},
        "seconds_per_epoch": 12.5,
    }


def test_one_run(tmp_path: Path, runs: list[Path]) -> None:
    result = invoke("compare", runs[2], "-o", tmp_path / "curves.png")
    assert result.exit_code == 0, result.stderr
    assert "95 %" not in result.stdout
    assert result.stderr == f"drew {tmp_path}/curves.png\n"


def test_what_is_refused(tmp_path: Path, runs: list[Path]) -> None:
    output = ("-o", tmp_path / "curves.png")
    refuses(r"invalid --output 'curves\.pdf': the name must end in \.png", "compare", *runs, "-o", "curves.pdf")
    refuses(f"no folder {tmp_path}/out to write", "compare", *runs, "-o", tmp_path / "out" / "curves.png")
    refuses("is given twice", "compare", runs[0], runs[0], *output)
    refuses(r"is not a run: it has no run\.json", "compare", runs[0], tmp_path, *output)
    other = write_run(tmp_path / "d", about={"validation": "digits", "validation data": {"images": 3}})
    refuses(r"different data cannot be compared: .*'cifar' .*, and .*'digits'", "compare", runs[0], other, *output)
    refuses("has no epochs yet", "compare", write_run(tmp_path / "e", []), *output)
    (runs[0] / "metrics.jsonl").write_text("{")
    refuses(r"line 1 of .*/a/metrics\.jsonl is no epoch", "compare", *runs, *output)
    assert not (tmp_path / "curves.png").exists()


def test_seeds_without_scipy(tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scipy", "scipy.stats"):
        monkeypatch.setitem(sys.modules, name, None)
    refuses(r"need SciPy \(.+\): pip install -e '.*\[report\]'", "compare", *runs, "-o", tmp_path / "curves.png")
