"""`benchmarks/deploy_sweep.py` to its end with tiny networks: it finds SE, compares, resumes, and writes its page."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import senet

PAGE = "before\n\n<!-- measured: written by benchmarks/deploy_sweep.py -->\n\nold\n\n<!-- /measured -->\n\nafter\n"
# Tiny networks of timm with SE, and one without.
NAMES = ["test_byobnet", "test_efficientnet", "test_vit"]


@pytest.fixture
def sweep() -> Any:
    return import_module("deploy_sweep")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In place of timm's list: a few names. A twin is a second name of the first network."""
    monkeypatch.setattr(timm, "list_models", lambda: [*NAMES, "twin", "unknown"])
    create = timm.create_model

    def build(name: str, **options: Any) -> nn.Module:
        return create("test_byobnet" if name == "twin" else name, **options)

    monkeypatch.setattr(timm, "create_model", build)
    monkeypatch.setattr(import_module("sweep_cases.networks"), "family", lambda name: "byobnet")
    return NAMES


@pytest.mark.usefixtures("registered")
def test_networks_are_compared_once_and_written(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, page = tmp_path / "found.jsonl", tmp_path / "page.md"
    page.write_text(PAGE)
    assert sweep.main(["--output", str(output), "--networks", "test_*"]) == 0
    monkeypatch.setattr(sweep, "compare", lambda name: pytest.fail(f"compares {name} again"))
    assert sweep.main(["--output", str(output), "--write", str(page)]) == 0
    found: dict[str, Any] = {}
    for line in output.read_text().splitlines():
        one = json.loads(line)
        found[one["case"]] = one
    assert {name: found[name]["status"].partition(":")[0] for name in found.keys() - {"about"}} == {
        "test_byobnet": "equal",
        "test_efficientnet": "equal",
        "test_vit": "no SE",
        "twin": "not run so far",
        "unknown": "not built",
    }
    one = found["test_byobnet"]
    assert sum(one["se"].values()) == one["modules"] > 0
    assert one["error"] < 1e-12
    assert one["norms"]["folded"] > 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 equal"
    text = page.read_text()
    assert "| `byobnet` | 3 | 2 | 2 |" in text
    assert "5 of the 5 networks of timm were searched; 3 have SE, of 2 architectures: 2 equal." in " ".join(
        text.split()
    )
    assert "- `test_byobnet`, `twin`\n" in text
    assert "- `unknown`: not built: RuntimeError" in text
    assert "old" not in text.split()
    assert text.endswith("<!-- /measured -->\n\nafter\n")
    output.write_text(output.read_text() + json.dumps(found["test_efficientnet"] | {"status": "not run so far"}) + "\n")
    assert sweep.main(["--output", str(output), "--write", str(page), "--no-running"]) == 0
    text = page.read_text()
    assert "- `test_efficientnet`: not run so far; 1 of 2 architectures of the family `byobnet` are equal\n" in text


def test_a_wrong_network_is_reported(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: list[str]
) -> None:
    deploy = senet.deploy

    def wrong(model: nn.Module, example: Any = None) -> nn.Module:
        deployed = deploy(model, example)
        with torch.no_grad():
            next(deployed.parameters()).mul_(1 + 1e-7)
        return deployed

    monkeypatch.setattr(senet, "deploy", wrong)
    output, page = tmp_path / "found.jsonl", tmp_path / "page.md"
    page.write_text(PAGE)
    arguments = ["--output", str(output), "--networks", registered[0], "--write", str(page)]
    assert sweep.main(arguments) == 1
    assert "- `test_byobnet`: differs by " in page.read_text()
    monkeypatch.setattr(senet, "deploy", deploy)
    assert sweep.main([*arguments, "--again", "test_*"]) == 0


def test_what_fails_or_is_too_large_has_its_reason(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: list[str]
) -> None:
    output = tmp_path / "found.jsonl"

    def fails(name: str) -> dict[str, Any]:
        raise MemoryError if name == registered[0] else ValueError("no such layer\nmore")

    monkeypatch.setattr(sweep, "compare", fails)
    assert sweep.main(["--output", str(output), "--networks", *registered[:2]]) == 0
    found = [json.loads(line)["status"] for line in output.read_text().splitlines()[-2:]]
    assert sorted(found) == ["rejected: ValueError: no such layer", "too large here: out of memory"]
    other = tmp_path / "other.jsonl"
    assert sweep.main(["--output", str(other), "--networks", registered[0], "--largest", "0"]) == 0
    assert "too large here: more than 0 million parameters (--largest)" in other.read_text()


def test_random_statistics_keep_values_of_order_one() -> None:
    networks, compare = import_module("sweep_cases.networks"), import_module("sweep_cases.compare")
    layers = [part for _ in range(30) for part in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
    model = nn.Sequential(*layers).double().eval()
    x = torch.randn(8, 3, 16, 16, dtype=torch.float64).repeat(1, 3, 1, 1)[:, :8]
    networks.randomize(model, x)
    with torch.no_grad():
        assert 0.1 < float(model(x).std()) < 10
    assert 1e-16 < compare.rounding(model, x) < 1e-12


def test_refuses(sweep: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--networks", "no_such*"], "no_such* matches no network of timm"),
        (["--write", "no.md"], "no.md cannot be read"),
    ):
        with pytest.raises(SystemExit):
            sweep.main(["--output", str(tmp_path / "x.jsonl"), *arguments])
        assert message in capsys.readouterr().err


def test_a_network_that_amplifies_rounding_on_the_other_size_is_no_equal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compare = import_module("sweep_cases.compare")
    deploy = senet.deploy

    class Wrong(nn.Module):
        """The deployed network, with an error on images that are not square."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model, self.report = model, model.report

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.model(x)
            return y if x.shape[2] == x.shape[3] else y * (1 + 1e-8)

    monkeypatch.setattr(senet, "deploy", lambda model, x: Wrong(deploy(model, x)))
    assert compare.compare("test_byobnet")["status"] == "differs"
    monkeypatch.setattr(compare, "rounding", lambda exact, x: 1e-9)
    assert compare.compare("test_byobnet")["status"] == "equal within rounding"
