"""`benchmarks/fused.py` and `benchmarks/fuse_sweep.py` to their ends with tiny networks."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm

from senet.nn.fused import fused_choice, set_fused


def test_it_measures_three_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "fused.jsonl"
    arguments = ["--networks", "timm/test_efficientnet", "--size", "32", "--batch", "2", "--rounds", "2"]
    assert import_module("fused").main([*arguments, "--threads", "1", "--output", str(output)]) == 0
    (line,) = map(json.loads, output.read_text().splitlines())
    assert [side["name"] for side in line["sides"]] == ["plain", "unfused", "fused"]
    plain, unfused, fused = (side["saved_bytes"] for side in line["sides"])
    assert plain < fused < unfused
    out, err = capsys.readouterr()
    assert out.splitlines()[2].startswith("| `timm/test_efficientnet` | ")
    assert "SE modules fused" in err


def test_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, output, before = import_module("fuse_sweep"), tmp_path / "fused.jsonl", fused_choice()
    monkeypatch.setattr(timm, "list_models", lambda: ["test_byobnet", "test_efficientnet", "test_vit", "unknown"])
    monkeypatch.setattr(import_module("sweep_cases.networks"), "family", lambda name: "all")
    try:
        assert sweep.main(["--output", str(output)]) == 0
        monkeypatch.setattr(sweep, "compare", lambda name: pytest.fail(f"compares {name} again"))
        assert sweep.main(["--output", str(output)]) == 0
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
