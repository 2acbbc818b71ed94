"""What the scripts of `benchmarks/` share."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from senet.benchmark import Setting


@pytest.fixture
def common() -> Any:
    return import_module("common")


def test_sides_are_compared_with_the_first_their_twin_and_another(common: Any) -> None:
    now = [0.0]

    class Timed(nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds, self.conv = seconds, nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            now[0] += self.seconds
            return self.conv(x).mean((2, 3))

    sides = [
        common.Side("a", lambda: Timed(0.2), "a"),
        common.Side("b", lambda: Timed(0.4), "b"),
        common.Side("se b", lambda: Timed(0.6), "b", also="a"),
        common.Side("se c", lambda: Timed(0.8), "c"),  # whose twin is not measured
    ]
    setting = Setting(mode="infer", batch=2, size=8, threads=1, device="cpu")
    found = common.compare(sides, setting, rounds=6, clock=lambda: now[0])
    assert (found["rounds"], found["steps"], found["steady"]) == (6, 1, True)
    base, _, se_b, se_c = found["sides"]
    assert se_b["base"]["median"] == pytest.approx(3)
    assert se_b["twin"]["median"] == pytest.approx(1.5)
    assert (se_b["twin"]["name"], se_b["also"]["name"]) == ("b", "a")
    assert se_b["also"]["median"] == pytest.approx(3)
    assert "twin" not in se_c
    assert "also" not in se_c
    assert se_c["seconds"] == pytest.approx(0.8)
    assert common.cell(base, "base") == "1"
    assert common.cell(se_b, "twin") == "1.500 (1.500 to 1.500)"
    assert common.cell(se_c, "twin") == "-"


def test_an_inconclusive_ratio_is_marked(common: Any) -> None:
    found = {"median": 1.1, "quartiles": [1.0, 1.25], "conclusive": False}
    assert common.spread(found) == "1.100 ? (1.000 to 1.250)"


def test_a_section_is_replaced_and_no_other(common: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"a\n<!-- one -->\n1\n{common.END}\nb\n<!-- two -->\n2\n{common.END}\nc\n")
    common.write_section(page, "<!-- two -->", ["x", common.markdown(["k", "v"], [["l", "w"]])])
    table = "| k | v |\n| --- | ---: |\n| l | w |"
    assert page.read_text() == (
        f"a\n<!-- one -->\n1\n{common.END}\nb\n<!-- two -->\n\nx\n\n{table}\n\n{common.END}\nc\n"
    )
    with pytest.raises(SystemExit, match="has no <!-- three --> ... <!-- /measured --> to write between"):
        common.write_section(page, "<!-- three -->", [])


@pytest.mark.parametrize(
    ("script", "page"), [("gpu", "performance.md"), ("training", "performance.md"), ("deploy", "deploy.md")]
)
def test_the_page_has_a_section_for_each_script(script: str, page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    assert text.count(import_module(script).BEGIN) == 1


def test_results_are_read_as_they_were_written(common: Any, tmp_path: Path) -> None:
    output, about = tmp_path / "found.jsonl", {"threads": 2, "hardware": {"gpu": "A"}}
    with pytest.raises(ValueError, match="no results at"):
        common.read_results(output, None)
    common.write_results(output, {"about": about, "x": {"seconds": 1.5}})
    with output.open("a") as file:
        file.write('{"case": "y", "sec')  # cut off
    assert common.read_results(output, about) == {"about": about, "x": {"seconds": 1.5}}
    with pytest.raises(
        ValueError, match=r"another machine \(gpu: A there, B now\); give another --output, or delete it"
    ):
        common.read_results(output, about | {"hardware": {"gpu": "B"}})
