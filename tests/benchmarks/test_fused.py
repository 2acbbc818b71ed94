"""`benchmarks/fused.py` and `benchmarks/fuse_sweep.py` to their ends with tiny networks."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm

from senet.nn.fused import fused_choice, set_fused


def test_it_measures_three_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, page = tmp_path / "fused.jsonl", tmp_path / "page.md"
    page.write_text("before\n<!-- measured: written by benchmarks/fused.py -->\n<!-- /measured -->\nafter\n")
    arguments = ["--networks", "timm/test_efficientnet", "--size", "32", "--batch", "2", "--rounds", "1", "--profile"]
    arguments += ["--threads", "1", "--output", str(output), "--write", str(page)]
    for measures in (True, False):  # results in the file are kept
        assert import_module("fused").main(arguments) == 0
        assert ("measure memory" in capsys.readouterr().err) == measures
    about, line = map(json.loads, output.read_text().splitlines())
    assert about["case"] == "about"
    assert [side["name"] for side in line["infer"]["sides"]] == ["plain", "unfused", "fused"]
    plain, unfused, fused = (side["saved_bytes"] for side in line["train"]["sides"])
    assert plain < fused < unfused
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| `timm/test_efficientnet` | 2 of 2 | " in text
    assert "| `timm/test_efficientnet` | fused | " in text


def test_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, output, before = import_module("fuse_sweep"), tmp_path / "fused.jsonl", fused_choice()
    page = tmp_path / "page.md"
    page.write_text("<!-- measured: written by benchmarks/fuse_sweep.py -->\n<!-- /measured -->\n")
    monkeypatch.setattr(timm, "list_models", lambda: ["test_byobnet", "test_efficientnet", "test_vit", "unknown"])
    monkeypatch.setattr(import_module("sweep_cases.networks"), "family", lambda name: "all")
    try:
        assert sweep.main(["--output", str(output)]) == 0
        monkeypatch.setattr(sweep, "compare", lambda name: pytest.fail(f"compares {name} again"))
        assert sweep.main(["--output", str(output), "--write", str(page)]) == 0
    finally:
        set_fused(before)
    found: dict[str, Any] = {}
    for text in output.read_text().splitlines():
        one = json.loads(text)
        found[one["case"]] = one
    assert {name: one["status"] for name, one in found.items() if "seconds" in one} == {
        "test_byobnet": "equal",
        "test_efficientnet": "equal",
    }
    assert all(found[name]["fused"] for name in ("test_byobnet", "test_efficientnet"))
    assert "2 names of timm have SE; compared 2: 2 equal" in capsys.readouterr().out
    assert "2 networks were compared, the smallest of each group: 2 equal. Of their SE modules" in page.read_text()
    assert "| `all` | 2 | " in page.read_text()
