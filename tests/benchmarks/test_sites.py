"""`benchmarks/sites.py` and its expectations, with networks that need no library but the core ones."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

PAGE = "before\n\n<!-- measured: written by benchmarks/sites.py -->\n\nold\n\n<!-- /measured -->\n\nafter\n"


@pytest.fixture
def cases() -> Any:
    return import_module("site_cases.cases")


class Unit(nn.Module):
    """A residual unit whose children are in no table."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def network() -> nn.Module:
    """A stem, two residual units and a classifier."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(stem, Unit(), Unit(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def case_of(cases: Any, *expected: str, **others: Any) -> Any:
    blocks = tuple(cases.Blocks.parse(text) for text in expected)
    return cases.Case("own/test", network, blocks, inputs=lambda: cases.image(2, 3, 32, 32), **others)


def test_blocks_are_selected_by_name_class_or_both(cases: Any) -> None:
    model = network()
    for text, names in (("2 :Unit = .", ["1", "2"]), ("1 2 = .", ["2"]), ("1 [0-9]:Sequential = .", ["0"])):
        assert cases.Blocks.parse(text).find(model) == names
    with pytest.raises(ValueError, match="expected 3 blocks :Unit, the network has 2"):
        cases.Blocks.parse("3 :Unit = .").find(model)
    with pytest.raises(ValueError, match="invalid expectation '2 :Unit body.1': expected COUNT BLOCKS = PLACES"):
        cases.Blocks.parse("2 :Unit body.1")


def test_places_are_in_the_block_and_a_star_matches_no_dot(cases: Any) -> None:
    model = network()
    for place, found in (
        ("body.1", {"1.body.1"}),
        (".", {"1"}),
        ("*", {"1.body"}),
        ("body.*:Conv2d", {"1.body.0"}),
        ("*.*", {"1.body.0", "1.body.1"}),
    ):
        assert cases.Blocks.parse(f"2 :Unit = {place}").sites(model, "1") == found


def test_sites_elsewhere_second_sites_and_blocks_without_one_are_faults(cases: Any) -> None:
    model, blocks = network(), [cases.Blocks.parse("2 :Unit = body.1 body")]
    assert cases.judge(model, blocks, ["1.body.1", "2.body"]).sensible
    verdict = cases.judge(model, blocks, ["1.body.1", "1.body", "0"])
    assert verdict == cases.Verdict(("1.body", "0"), ("2",))
    assert not verdict.sensible
    optional = [cases.Blocks.parse("2 :Unit = body.1", optional=True)]
    assert cases.judge(model, optional, ["1.body.1"]).sensible


@pytest.mark.parametrize(
    ("expected", "others", "verdict"),
    [
        (["2 :Unit = body.1"], {}, "sensible"),
        (["1 2 = body.1"], {}, "wrong"),
        (["2 :Unit = body.1", "1 0 = ."], {}, "incomplete"),
        ([], {"refused": "SE of the network's own"}, "wrong"),
    ],
)
def test_a_network_is_judged_and_checked(cases: Any, expected: list[str], others: Any, verdict: str) -> None:
    case = case_of(cases, *expected, **others)
    result = import_module("site_cases.checks").check(case)
    assert result.verdict(case) == verdict
    assert (result.sites, result.failed, result.refusal) == (2, [], "")
    assert result.placements["standard"] == 2


def test_a_network_with_se_of_its_own_is_refused_as_expected(cases: Any) -> None:
    import timm

    build = lambda: timm.create_model("resnet26d", block_args={"attn_layer": "se"}, layers=(1, 1, 1, 1))  # noqa: E731
    case = cases.Case("own/se", build, refused="is SE of the network's own")
    result = import_module("site_cases.checks").check(case)
    assert result.verdict(case) == "refused"
    assert result.sites == 0


def test_a_gate_without_an_effect_is_a_failure(cases: Any) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.unused = network(), Unit()

        def forward(self, x: Tensor) -> Tensor:
            self.unused(torch.ones(1, 8, 4, 4))
            return self.net(x)

    import senet

    checks = import_module("site_cases.checks")
    case = cases.Case("own/unused", Unused, inputs=lambda: cases.image(2, 3, 32, 32))
    model = senet.insert(Unused().eval(), at=["unused.body.1", "net.1.body.1"])
    assert checks._silent(case, model, (case.inputs(),)) == ["unused.body.1.se"]


def test_networks_written_by_hand_are_as_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    sites = import_module("sites")
    output, page = tmp_path / "sites.json", tmp_path / "page.md"
    page.write_text(PAGE)
    arguments = ["sites.py", "--output", str(output), "--write", str(page), "--cases", "own/*_1d"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        sites.main()
    assert stop.value.code == 0
    results = json.loads(output.read_text())
    assert set(results) == {"own/resnet_1d", "own/unet_1d"}
    assert results["own/resnet_1d"]["sites"] == 6
    assert all(not result["wrong"] + result["missing"] + result["failed"] for result in results.values())
    text = page.read_text()
    assert "100 % of 2 networks have sensible sites: 2 sensible, 0 wrong." in text
    assert "| `own/resnet_1d` | 6 |" in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "100 % of 2 networks" in capsys.readouterr().out


def test_every_network_has_an_expectation_or_is_refused_and_one_name() -> None:
    sites = import_module("sites")
    assert len(sites.CASES) == len(sites.LISTED) + len(sites.FURTHER) > 150
    for case in sites.CASES.values():
        assert bool(case.refused) != any(not group.optional for group in case.blocks), case.name


def test_the_page_has_a_section_for_the_script() -> None:
    text = (Path(__file__).parents[2] / "docs" / "insertion.md").read_text()
    assert text.count(import_module("sites").BEGIN) == 1
