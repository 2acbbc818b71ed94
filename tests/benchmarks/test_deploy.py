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
    sides = ["plain, deployed", "plain", "original", "deployed"]
    assert measured == [sides, sides]  # the first case is not measured again
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["case"] for line in lines] == ["about", "eager-se_resnet50-1", "eager-se_resnet50-8"]
    assert lines[1]["sides"]["deployed"]["to plain"]["median"] == pytest.approx(1.3)
    assert lines[1]["sides"]["deployed"]["to itself"]["median"] == pytest.approx(13 / 12)
    text = page.read_text()
    assert "| `se_resnet50` | 1 | eager | 1.200 ? (1.200 to 1.200) | 1.300 ? (1.300 to 1.300) | 1.02 missed |" in text
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
