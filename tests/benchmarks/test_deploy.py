"""`benchmarks/deploy.py` to its end with a tiny network in eager mode; it resumes, and writes its page."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from senet.benchmark import Times

PAGE = "before\n\n<!-- measured: written by benchmarks/deploy.py -->\n\nold\n\n<!-- /measured -->\n\nafter\n"


@pytest.fixture
def deploy() -> Any:
    return import_module("deploy")


@pytest.fixture
def measured(deploy: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """In place of processes: times of two rounds, one millisecond more for each side."""
    seen = []

    def measure(jobs: Any, **options: Any) -> Any:
        seen.append([name for name, _ in jobs])
        assert all(Path(job.path).is_file() and job.shape == (2, 3, 32, 32) for _, job in jobs)
        return Times(np.array([[0.01 + 0.001 * side for side in range(len(jobs))]] * 2), 1, 1, True), [0.0] * len(jobs)

    monkeypatch.setattr(import_module("deploy_cases.cases"), "measure_processes", measure)
    return seen


def test_it_measures_resumes_and_writes(deploy: Any, measured: list[list[str]], tmp_path: Path) -> None:
    output, page = tmp_path / "found.jsonl", tmp_path / "page.md"
    page.write_text(PAGE)
    arguments = ["--quick", "--output", str(output), "--write", str(page)]
    assert deploy.main([*arguments, "--cases", "eager-se_resnet50-1"]) == 0
    assert deploy.main([*arguments, "--cases", "eager-se_resnet50-*"]) == 0
    sides = ["plain", "original", "deployed", "timm's"]
    assert measured == [sides, sides]  # the first case is not measured again
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["case"] for line in lines] == ["about", "eager-se_resnet50-1", "eager-se_resnet50-8"]
    assert lines[1]["sides"]["deployed"]["to plain"]["median"] == pytest.approx(1.2)
    assert lines[1]["sides"]["deployed"]["to itself"]["median"] == pytest.approx(12 / 11)
    text = page.read_text()
    assert "| `se_resnet50` | 1 | eager | 1.100 ? (1.100 to 1.100) | 1.02 | 1.200 ? (1.200 to 1.200) | no |" in text
    assert "batch 1: 1.08 times as fast as timm's `seresnet50` (goal 1.15: missed)." in text
    assert "(first quartile above 1): `se_resnet50` in eager, batch 1, `se_resnet50` in eager, batch 8." in text
    assert "old" not in text.split()
    assert text.endswith("<!-- /measured -->\n\nafter\n")
    output.write_text(output.read_text().replace('"threads": ', '"threads": 9'))
    with pytest.raises(SystemExit):
        deploy.main(arguments)


def test_a_case_that_fails_is_listed_and_run_again(
    deploy: Any, measured: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, page = tmp_path / "found.jsonl", tmp_path / "page.md"
    page.write_text(PAGE)
    arguments = ["--quick", "--output", str(output), "--write", str(page), "--cases", "eager-se_resnet50-1"]

    def fails(*arguments: Any, **options: Any) -> Any:
        raise ValueError("no such operator\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(import_module("deploy_cases.cases"), "measure_processes", fails)
        assert deploy.main(arguments) == 1
    assert "- `eager-se_resnet50-1`: ValueError: no such operator\n" in page.read_text()
    assert deploy.main(arguments) == 0
    assert len(measured) == 1


@pytest.mark.slow
def test_exported_files_are_kept_and_profiled(deploy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    profiles = import_module("deploy_cases.profiles")
    monkeypatch.setattr(profiles, "RUNS", 2)
    files, page, output = tmp_path / "files", tmp_path / "page.md", tmp_path / "found.jsonl"
    page.write_text(PAGE)
    arguments = ["--quick", "--cases", "profile-onnxruntime-se_resnet50", "--files", str(files)]
    assert deploy.main([*arguments, "--prepare"]) == 0
    names = {path.name: path.stat().st_mtime_ns for path in files.iterdir()}
    assert set(names) == {"onnxruntime-se_resnet50-plain-2.onnx", "onnxruntime-se_resnet50-deployed-2.onnx"}
    assert deploy.main([*arguments, "--output", str(output), "--write", str(page)]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in files.iterdir()} == names
    text = page.read_text()
    assert "#### Time by operation: `se_resnet50`, onnxruntime, batch 1" in text
    assert "| `Conv` |" in text
    with pytest.raises(SystemExit):
        deploy.main(["--quick", "--prepare"])
