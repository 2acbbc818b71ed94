from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from senet.tasks import get_task
from senet.utils.figure_style import COLOURS, VERMILLION
from senet.utils.figures import Curve, draw_comparison, draw_cost, draw_curves, draw_grid
from tests.images import picture

PANELS = get_task("classification").panels
EPOCHS = [
    {"epoch": n, "train_loss": 2.0 / n, "train_error": 50.0 / n, "loss": 1.0 / n, "top1_error": error}
    for n, error in enumerate((40.0, 12.5, 12.5, 30.0), 1)
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures, as they are when they are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return image.size


@pytest.mark.parametrize("epochs", [1, 4])
def test_curves_show_every_epoch(tmp_path: Path, drawn: list[Figure], epochs: int) -> None:
    draw_curves(EPOCHS[:epochs], tmp_path / "curves.png", "se_resnet20 on $5_x", PANELS)
    assert size(tmp_path / "curves.png") == (1400, 620)
    (figure,) = drawn
    keys = [("train_error", "top1_error"), ("train_loss", "loss")]
    for axes, pair in zip(figure.axes, keys, strict=True):
        for line, key in zip(axes.lines, pair, strict=True):
            assert np.array_equal(line.get_xdata(), np.arange(1, epochs + 1))
            assert np.array_equal(line.get_ydata(), [epoch[key] for epoch in EPOCHS[:epochs]])
        assert axes.get_ylim()[0] == 0
    # A ring around the best epoch.
    (ring,) = np.asarray(figure.axes[0].collections[0].get_offsets())
    assert tuple(ring) == ((1, 40.0) if epochs == 1 else (2, 12.5))
    assert figure.axes[0].texts[0].get_text() == ("best 40.00 %" if epochs == 1 else "best 12.50 %")
    assert figure.axes[0].texts[0].xy == ((1, 40.0) if epochs == 1 else (2, 12.5))  # the first of the best
    assert figure.get_suptitle() == "se_resnet20 on $5_x"


def test_curves_of_a_long_run(tmp_path: Path) -> None:
    draw_curves([{**EPOCHS[0], "epoch": n} for n in range(1, 200)], tmp_path / "curves.png", "", PANELS)
    assert size(tmp_path / "curves.png") == (1400, 620)


def run_of(errors: list[float]) -> list[dict[str, float]]:
    return [
        {"epoch": n, "train_loss": e / 10, "train_error": e, "loss": e / 10, "top1_error": e}
        for n, e in enumerate(errors, 1)
    ]


def test_one_epoch_that_diverged_does_not_squash_the_curves(tmp_path: Path, drawn: list[Figure]) -> None:
    errors = [60 / n**0.5 for n in range(1, 41)]
    epochs: list[dict[str, Any]] = list(run_of(errors))
    epochs[20] |= {"loss": 9000.0}
    draw_curves(epochs, tmp_path / "curves.png", "", PANELS)
    error, loss = drawn[0].axes
    assert error.get_yscale() == loss.get_yscale() == "linear"
    assert 2 < loss.get_ylim()[1] < 7
    assert [text.get_text() for text in loss.texts] == ["\u25b2 9,000"]  # what the axis does not reach is written
    assert loss.texts[0].xy[0] == 21


def test_the_end_of_a_run_that_fell_by_decades_is_legible(tmp_path: Path, drawn: list[Figure]) -> None:
    errors = [82.0, 62, 22, 29, 2.2, 5.9, 0.3, 0.6, 0.3, 1.4, 0.6, 0.3]
    draw_curves(run_of(errors), tmp_path / "curves.png", "", PANELS)
    for axes, scale in zip(drawn[0].axes, (1, 0.1), strict=True):
        assert axes.get_yscale() == "log"
        low, high = axes.get_ylim()
        assert 0 < low < 0.3 * scale
        assert high > 82 * scale
    draw_curves(run_of([*errors[:-1], 0.0]), tmp_path / "curves.png", "", PANELS)  # zero is below a logarithmic axis
    error = drawn[1].axes[0]
    assert error.get_ylim()[0] == pytest.approx(0.2)
    assert error.texts[0].get_text() == "best 0.00 %"
    assert error.texts[0].xy[1] == pytest.approx(0.2)


def test_no_epochs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no epochs to plot; give at least one"):
        draw_curves([], tmp_path / "curves.png", "", PANELS)


def arm(label: str, runs: list[list[float]]) -> tuple[str, list[Curve]]:
    """With a band of 2 to either side, and a loss that is a tenth of the error."""
    values = np.array(runs)
    mean = values.mean(0)
    error, loss = (
        Curve(mean * scale, None if len(runs) == 1 else (mean * scale - 2, mean * scale + 2), values * scale)
        for scale in (1.0, 0.1)
    )
    return label, [error, loss]


def test_comparison_shows_means_bands_and_seeds(tmp_path: Path, drawn: list[Figure]) -> None:
    arms = [arm("$5_x", [[40.0, 20, 10], [44, 22, 12]]), arm("plain", [[50.0, 30]])]
    draw_comparison(arms, tmp_path / "curves.png", "on $", PANELS, "bands and $")
    assert size(tmp_path / "curves.png")[0] == 1400
    (figure,) = drawn
    for axes, (first, second) in zip(figure.axes, list(zip(arms[0][1], arms[1][1], strict=True)), strict=True):
        expected = [*first.runs, first.mean, second.mean]
        for line, values in zip(axes.lines, expected, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, len(values) + 1))
            np.testing.assert_array_equal(line.get_ydata(), values)
        colours = [line.get_color() for line in axes.lines]
        assert colours[0] == colours[1] == colours[2] != colours[3]
        (band,) = axes.collections
        assert first.band is not None
        corners = {(x, y) for x, y in band.get_paths()[0].vertices.tolist()}
        assert corners == {(n, end[n - 1]) for n in (1, 2, 3) for end in first.band}
        assert axes.get_xlim() == (0.5, 3.5)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["$5_x", "plain"]
    assert legend.get_title().get_text() == "bands and $"
    assert figure.get_suptitle() == "on $"
    # The legend stands beneath the panels: nothing is behind it.
    bottom = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert legend.get_window_extent().y1 <= bottom + 1


def test_a_first_epoch_that_diverged_does_not_squash_the_rest(tmp_path: Path, drawn: list[Figure]) -> None:
    usual = [40.0, 30, 22, 18, 16, 15]
    draw_comparison([arm("a", [[9000.0, *usual[1:]]]), arm("b", [usual])], tmp_path / "curves.png", "", PANELS)
    low, high = drawn[0].axes[0].get_ylim()
    assert low < 15
    assert 40 < high < 60


@pytest.mark.parametrize("errors", [[60.0, 30, 25], [60 / n for n in range(1, 13)]])
def test_a_usual_first_epoch_is_shown(tmp_path: Path, drawn: list[Figure], errors: list[float]) -> None:
    draw_comparison([arm("a", [errors])], tmp_path / "curves.png", "", PANELS)
    assert drawn[0].axes[0].get_ylim()[1] > 60


@pytest.mark.parametrize("errors", [[0.0], [0.0, 0.0], [7.0], [90.0, 0.0]])
def test_comparison_of_few_and_equal_values(tmp_path: Path, drawn: list[Figure], errors: list[float]) -> None:
    draw_comparison([arm("a", [errors])], tmp_path / "curves.png", "", PANELS)
    for axes, scale in zip(drawn[0].axes, (1, 0.1), strict=True):
        low, high = axes.get_ylim()
        assert 0 <= low <= min(errors) * scale
        assert max(errors) * scale < high


def test_arms_are_distinguishable(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_comparison([arm(str(n), [[30.0 - n, 20 - n]]) for n in range(25)], tmp_path / "curves.png", "", PANELS)
    looks = [(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines]
    assert len(set(looks)) == 25
    assert len({colour for colour, _ in looks[: len(COLOURS)]}) == len(COLOURS)


def test_no_arms(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no arms to plot; give at least one"):
        draw_comparison([], tmp_path / "curves.png", "", PANELS)


@pytest.mark.parametrize(("images", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 5, 1), (6, 5, 2), (14, 5, 3)])
def test_grid_has_every_image_and_its_label(
    tmp_path: Path, drawn: list[Figure], images: int, columns: int, rows: int
) -> None:
    pictures = [picture(seed) for seed in range(images)]
    labels = [(f"class {seed}", seed % 2 == 1) for seed in range(images)]
    draw_grid(pictures, labels, tmp_path / "grid.png", "digits")
    width, height = size(tmp_path / "grid.png")
    of_one = min(7 / columns, 2.4)
    assert abs(width - 200 * of_one * columns) <= 1
    assert abs(height - 200 * ((of_one + 0.25) * rows + 0.4)) <= 1
    shown = [axes for axes in drawn[0].axes if axes.images]
    for axes, image, (text, wrong) in zip(shown, pictures, labels, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
        # Errors are recognizable without colours.
        assert axes.get_title() == ("\u2717 " if wrong else "") + text
        assert (axes.title.get_color() == VERMILLION) == wrong
        assert (axes.axison and axes.spines["left"].get_linewidth() > 2) == wrong
    assert len(drawn[0].axes) == rows * columns


def test_long_labels_do_not_reach_into_the_next_image(tmp_path: Path, drawn: list[Figure]) -> None:
    labels = [("animal, frog, deer, bird, cat, horse\ntruth: cat", True), ("airplane_cabin/with/long/name", False)]
    draw_grid([picture(0), picture(1)] * 3, labels * 3, tmp_path / "grid.png")
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles[:2] == ["\u2717 animal, frog, deer,\nbird, cat, horse\ntruth: cat", "airplane_cabin/with/lon\ng/name"]
    heights = [axes.get_position().height for axes in drawn[0].axes[:6]]
    assert size(tmp_path / "grid.png")[1] * heights[0] > 200  # images keep their size
    assert heights == pytest.approx([heights[0]] * 6)
    draw_grid([picture(0)], [("label, " * 40, False)], tmp_path / "grid.png")
    assert drawn[1].axes[0].get_title().count("\n") == 2


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_grid_of_other_modes(tmp_path: Path, drawn: list[Figure], mode: str) -> None:
    image = picture(0, 70, 80).convert(mode)
    draw_grid([image], [("", False)], tmp_path / "grid.png")
    np.testing.assert_array_equal(drawn[0].axes[0].images[0].get_array(), image.convert("RGB"))


def test_labels_are_no_formulas(tmp_path: Path) -> None:
    # Matplotlib took what stood between dollars for mathematics, and stopped at what it could not parse.
    draw_grid([picture(0)], [(r"$\no$ formula_^", False)], tmp_path / "grid.png", r"$\nor$ this")
    assert size(tmp_path / "grid.png")[0] > 0


@pytest.mark.parametrize(("images", "labels"), [(0, 0), (2, 1), (1, 2)])
def test_images_without_labels(tmp_path: Path, images: int, labels: int) -> None:
    with pytest.raises(ValueError, match=f"a label for each, got {images} images and {labels} labels"):
        draw_grid([picture(0)] * images, [("", False)] * labels, tmp_path / "grid.png")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no folder {tmp_path}/out to write grid.png to"):
        draw_grid([picture(0)], [("", False)], tmp_path / "out" / "grid.png")


STAGES = [("stage 1\n112x112", (9_536, 0), (118_013_952, 0)), ("stage 2\n56x56", (215_808, 25_000), (10**9, 10**6))]


def test_cost_by_stage(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_cost(STAGES, tmp_path / "cost.png", "se_$5_x")
    assert size(tmp_path / "cost.png")[0] == 1400
    (figure,) = drawn
    params, macs = figure.axes
    # Plain bars, then SE's at their ends, in thousands and in thousands of millions.
    assert [bar.get_width() for bar in params.patches] == [9.536, 215.808, 0, 25]
    assert [bar.get_x() for bar in params.patches] == [0, 0, 9.536, 215.808]
    assert np.allclose([bar.get_width() for bar in macs.patches], [0.118013952, 1, 0, 1e-3])
    assert params.get_xlabel() == "parameters (K)"
    assert macs.get_xlabel() == "multiply-adds (G)"
    assert params.get_title() == "parameters: 250 K, of SE 25 K (10 %)"
    assert [text.get_text().strip() for text in params.texts] == ["+25 K, 10 %"]
    assert [label.get_text() for label in params.get_yticklabels()] == ["stage 1, 112x112", "stage 2, 56x56"]
    assert params.yaxis.get_inverted()  # the first stage is on top
    assert figure.get_suptitle() == "se_$5_x"


def test_cost_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stages to plot; give at least one"):
        draw_cost([], tmp_path / "cost.png", "")
    draw_cost([("head", (0, 0), (0, 0))], tmp_path / "cost.png", "")
