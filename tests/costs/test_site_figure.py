from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image
from torch import nn

import senet
from senet.costs import site_figure
from senet.costs.site_costs import cost_of_sites, example_run
from senet.costs.site_figure import draw_sites
from senet.utils.figure_style import theme
from tests.graph.test_layers import TinyUNet


def drawn(monkeypatch: pytest.MonkeyPatch, model: nn.Module, **options: Any) -> Any:
    """Return the figure of a network."""
    figures: list[Any] = []
    monkeypatch.setattr(site_figure, "save_figure", lambda figure, path: figures.append(figure))
    run = example_run(model, torch.empty(1, 3, 16, 16))
    sites = senet.find_sites(model, **options)
    draw_sites(run, cost_of_sites(model, sites, run), "x.png", "a $title")
    return figures[0]


def colours(figure: Any) -> Counter[str]:
    return Counter(to_hex(patch.get_facecolor()) for patch in figure.axes[0].patches if hasattr(patch, "get_boxstyle"))


def test_boxes_and_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    model = senet.create_model("resnet20")
    top, bottom = drawn(monkeypatch, model).axes
    assert colours(top.figure) == {site_figure._LAYER: 18, site_figure._SITE: 9, theme().box: 2}
    labels = [label.get_text() for label in top.get_yticklabels()]
    assert labels == ["16\u00d716\nstage 2", "8\u00d78\nstage 3", "4\u00d74\nstage 4", "pooled"]
    assert len(bottom.patches) == 9
    assert [round(bar.get_height()) for bar in bottom.patches][-1] == 580
    assert {"layer1", "layer2", "layer3"} <= {text.get_text() for text in top.texts}


def test_a_skip_across_resolutions_is_dashed(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, skips = drawn(monkeypatch, TinyUNet(), at=["enter", "deep.1"]).axes[0].collections
    lines = {len(collection.get_segments()) for collection in (flow, skips)}
    assert lines == {2, 7}  # from `enter` to the concatenation and to the sum; all others
    assert all(start[1] == end[1] for start, *_, end in skips.get_segments())


@pytest.mark.parametrize("placement", ["pre", "post", "identity", "conv3x3"])
def test_every_placement(monkeypatch: pytest.MonkeyPatch, placement: str) -> None:
    figure = drawn(monkeypatch, senet.create_model("resnet20"), placement=placement)
    assert colours(figure)[site_figure._SITE] == 9


def test_writes_a_png(tmp_path: Path) -> None:
    model = TinyUNet()
    run = example_run(model, torch.empty(1, 3, 16, 16))
    costs = cost_of_sites(model, senet.find_sites(model, at="enter"), run)
    draw_sites(run, costs, tmp_path / "x.png", "a $title with \x1b")
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000
    with pytest.raises(ValueError, match="no convolution or linear layer"):
        draw_sites(example_run(nn.ReLU()), cost_of_sites(nn.ReLU(), [], None), tmp_path / "y.png", "")
    assert not (tmp_path / "y.png").exists()
