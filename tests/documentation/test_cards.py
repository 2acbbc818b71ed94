"""Model cards: every network of the paper has one that is not stale, and its weights load as the card says."""

import ast
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import timm
import torchvision
from pytorchcv.model_provider import get_model
from torch import nn

import senet
from senet.models import plain_name
from senet.paper import entries
from tests.documentation.blocks import ROOT

CARDS = ROOT / "docs" / "cards"
TEXT = {path.stem: path.read_text(encoding="utf-8") for path in sorted(CARDS.glob("*.md"))}
# Networks, and the values of weights= that load them.
LINES = sorted(
    (network, weights)
    for text in TEXT.values()
    for network, weights in re.findall(r'`senet\.create_model\("(\w+)", weights=(.+?)\)` \|', text)
)


def generator(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / name))


def test_every_network_of_the_paper_has_a_card() -> None:
    text = "".join(TEXT.values())
    networks = {plain_name(entry.network) for entry in entries() if entry.network}
    assert [name for name in sorted(networks) if f"| | `{name}` |" not in text] == []
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert all(f"cards/{name}.md" in str(nav) for name in TEXT)
    assert len(LINES) > 25


@pytest.mark.slow
@pytest.mark.parametrize("group", list(TEXT))
def test_cards_are_not_stale(group: str) -> None:
    assert generator("generate_cards.py")["page"](group) == TEXT[group], "run: make models"


@pytest.mark.slow
@pytest.mark.parametrize(("network", "weights"), LINES, ids=lambda value: re.sub(r"\W+", "-", value))
def test_weights_of_cards_load(network: str, weights: str) -> None:
    """The same network, untrained: the card's line downloads it. Files of the release have tests of their own."""
    if weights.startswith("get_model("):
        other = get_model(ast.literal_eval(weights.removeprefix("get_model(").partition(",")[0]))
    else:
        library, _, name = ast.literal_eval(weights).partition(":")
        if library.endswith(".caffemodel"):
            pytest.skip("tests/weights/test_caffe.py")
        other = timm.create_model(name) if library == "timm" else torchvision.models.get_model(name)
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):  # 152 untrained layers amplify rounding to 1e-4, beyond the comparison
            nn.init.constant_(module.weight, 0.5)
    model: Any = senet.create_model(network, weights=other)
    assert model.weights_report.missing == ()
    assert model.weights_report.covered == 100


@pytest.mark.slow
def test_pictures_of_placements_are_not_stale(tmp_path: Path) -> None:
    written = generator("placements.py")
    for name, site in written["sites"]().items():
        for suffix, colours in written["THEMES"].items():
            path = tmp_path / "picture.svg"
            written["draw"](written["place_of"](site), name, colours, path)
            there = (ROOT / "docs" / "placements" / f"{name}{suffix}.svg").read_text(encoding="utf-8")
            assert path.read_text(encoding="utf-8") == there, "run: make models"


def test_pictures_show_the_site_of_each_placement() -> None:
    written = generator("placements.py")
    found = {name: written["place_of"](site) for name, site in written["sites"]().items()}
    assert found == {"standard": "bn3", "pre": "input", "post": "output", "identity": "skip", "conv3x3": "bn2"}
    places = {place for place, _ in written["ROWS"]} | {"skip"}
    assert set(found.values()) <= places
