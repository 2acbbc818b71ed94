from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from senet.gates.recording.record import Gates
from senet.gates.report.plots import draw_figure6, draw_figure7
from tests.gates.simulated import simulated

PLAN = [("a", 2, 1, 80, "class-agnostic"), ("b", 3, 1, 16, "class-specific"), ("c", None, 1, 4, "constant")]


@pytest.fixture
def gates() -> Gates:
    return simulated(PLAN, ["goldfish", "_hidden", "$5$", "plane", "unseen"], missing=(4,))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: object, **options: object) -> None:
        figures.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_figure6_has_a_line_for_each_class_and_the_mean(gates: Gates, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_figure6(gates, [tmp_path / "6.pdf", tmp_path / "6.png"], channels=10)
    assert (tmp_path / "6.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(tmp_path / "6.png") as image:
        assert image.format == "PNG"
    panels = drawn[0].axes
    assert [axes.get_title() for axes in panels] == ["SE_2_1", "SE_3_1", "c"]
    for axes, block, count in zip(panels, gates.blocks, (10, 10, 4), strict=True):
        *lines, mean = axes.get_lines()
        # Channels have their own numbers, also where they are sampled.
        numbers = mean.get_xdata().astype(int)
        np.testing.assert_array_equal(mean.get_ydata(), block.gates.mean[numbers])
        assert len(set(numbers)) == count
        assert axes.get_xlim() == (-0.5, block.channels - 0.5)
        assert len(lines) == 4
        assert all(len(line.get_ydata()) == count for line in [*lines, mean])
        assert set(mean.get_ydata()) <= set(block.gates.mean)
        assert set(lines[1].get_ydata()) <= set(block.gates.means[3])
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == ["goldfish", "plane", "_hidden", "$5$", "all"]


def test_figure6_with_all_channels_and_chosen_classes(gates: Gates, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_figure6(gates, [tmp_path / "6.svg"], channels=None, classes=["$5$"])
    line, mean = drawn[0].axes[0].get_lines()
    np.testing.assert_array_equal(line.get_ydata(), gates.blocks[0].gates.means[2])
    np.testing.assert_array_equal(mean.get_ydata(), gates.blocks[0].gates.mean)
    assert "$5$" in (tmp_path / "6.svg").read_text("utf-8")


def test_figure7_shades_a_deviation_on_either_side(gates: Gates, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_figure7(gates, [tmp_path / "7.png"], classes=["goldfish", "plane"], channels=None)
    panels = drawn[0].axes
    assert len(panels) == 6
    block = gates.blocks[1].gates
    axes = panels[3]  # the second row's second
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), block.means[3])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    deviation = np.sqrt(block.squares[3] / 50)
    assert band.max() == pytest.approx((block.means[3] + deviation).max(), rel=1e-12)
    assert band.min() == pytest.approx((block.means[3] - deviation).min(), rel=1e-12)


def test_figure7_shows_the_papers_two(gates: Gates, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_figure7(gates, [tmp_path / "7.png"])
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles == ["goldfish", "plane", "", "", "", ""]
    assert [axes.get_ylabel() for axes in drawn[0].axes[::2]] == ["SE_2_1\ngate", "SE_3_1\ngate", "c\ngate"]


def test_blocks_are_those_of_the_paper(tmp_path: Path, drawn: list[Figure]) -> None:
    counts = {2: 3, 3: 4, 4: 6, 5: 3}
    plan = [(f"{s}.{n}", s, n, 4, "varied") for s, count in counts.items() for n in range(1, count + 1)]
    gates = simulated(plan, ["goldfish", "plane"])
    draw_figure6(gates, [tmp_path / "6.png"])
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles == ["SE_2_3", "SE_3_4", "SE_4_6", "SE_5_1", "SE_5_2", "SE_5_3"]
    draw_figure6(gates, [tmp_path / "6.png"], blocks=["SE_3_1", "2.2"])
    assert [axes.get_title() for axes in drawn[1].axes] == ["SE_3_1", "SE_2_2"]


@pytest.mark.parametrize("draw", [draw_figure6, draw_figure7])
def test_what_cannot_be_drawn(draw: object, gates: Gates, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"figure\.doc: unknown format.* \.pdf, \.png or \.svg"):
        draw(gates, [tmp_path / "figure.pdf", tmp_path / "figure.doc"])
    with pytest.raises(ValueError, match="did you mean 'goldfish'"):
        draw(gates, [tmp_path / "figure.pdf"], classes=["goldfisch"])
    with pytest.raises(ValueError, match="the class 'unseen' has no recorded images"):
        draw(gates, [tmp_path / "figure.pdf"], classes=["unseen"])
    with pytest.raises(ValueError, match="did you mean 'SE_3_1'"):
        draw(gates, [tmp_path / "figure.pdf"], blocks=["SE_31"])
    with pytest.raises(ValueError, match="blocks is empty"):
        draw(gates, [tmp_path / "figure.pdf"], blocks=[])
    with pytest.raises(ValueError, match="1 or more, got 0"):
        draw(gates, [tmp_path / "figure.pdf"], channels=0)
    with pytest.raises(FileNotFoundError, match="make it first"):
        draw(gates, [tmp_path / "missing" / "figure.pdf"])
    assert not list(tmp_path.iterdir())
