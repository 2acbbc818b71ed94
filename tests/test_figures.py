from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from senet.figures import draw_curves, draw_grid
from tests.images import picture

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
    draw_curves(EPOCHS[:epochs], tmp_path / "curves.png", "se_resnet20 on $5_x")
    assert size(tmp_path / "curves.png") == (1296, 518)
    (figure,) = drawn
    keys = [("train_error", "top1_error"), ("train_loss", "loss")]
    for axes, pair in zip(figure.axes, keys, strict=True):
        for line, key in zip(axes.lines, pair, strict=True):
            assert np.array_equal(line.get_xdata(), np.arange(1, epochs + 1))
            assert np.array_equal(line.get_ydata(), [epoch[key] for epoch in EPOCHS[:epochs]])
        assert axes.get_ylim()[0] == 0
    assert figure.axes[0].texts[0].get_text() == ("best 40.00 %" if epochs == 1 else "best 12.50 %")
    assert figure.axes[0].texts[0].xy == ((1, 40.0) if epochs == 1 else (2, 12.5))  # the first of the best
    assert figure.get_suptitle() == "se_resnet20 on $5_x"


def test_curves_of_a_long_run(tmp_path: Path) -> None:
    draw_curves([{**EPOCHS[0], "epoch": n} for n in range(1, 200)], tmp_path / "curves.png", "")
    assert size(tmp_path / "curves.png") == (1296, 518)


def test_no_epochs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no epochs to draw curves of; give one or more"):
        draw_curves([], tmp_path / "curves.png", "")


@pytest.mark.parametrize(("images", "columns", "rows"), [(1, 1, 1), (8, 8, 1), (9, 8, 2), (20, 8, 3)])
def test_grid_has_every_image_and_its_label(
    tmp_path: Path, drawn: list[Figure], images: int, columns: int, rows: int
) -> None:
    pictures = [picture(seed) for seed in range(images)]
    labels = [(f"class {seed}", seed % 2 == 1) for seed in range(images)]
    draw_grid(pictures, labels, tmp_path / "grid.png", "digits")
    width, height = size(tmp_path / "grid.png")
    assert (width, height) == (round(1.35 * columns * 144 - 0.4), round((1.6 * rows + 0.4) * 144 - 0.4))
    shown = [axes for axes in drawn[0].axes if axes.images]
    for axes, image, (text, wrong) in zip(shown, pictures, labels, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
        assert axes.get_title() == text
        assert (axes.title.get_color() == "black") != wrong
    assert len(drawn[0].axes) == rows * columns


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
