from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from senet.utils import confusion_plot
from senet.utils.confusion_plot import draw_confusion


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, which are not written."""
    figures: list[Figure] = []
    monkeypatch.setattr(confusion_plot, "save_figure", lambda figure, path: figures.append(figure))
    return figures


@pytest.mark.parametrize(("classes", "cells", "names"), [(3, 5, 3), (21, 0, 21), (151, 0, 0)])
def test_what_is_legible_is_written(drawn: list[Figure], classes: int, cells: int, names: int) -> None:
    matrix = np.diag(np.full(classes, 4))
    matrix[0, 2] = matrix[1, 2] = 1
    matrix[2] = 0  # a class without images
    matrix[2, 2] = 1200
    draw_confusion(matrix, [f"$class {n}" * 9 for n in range(classes)], Path("out.png"), "title")
    axes = drawn[0].axes[0]
    assert axes.images[0].get_array().tolist()[0][:3] == pytest.approx([80, 0, 20])
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == cells
    assert cells == 0 or "1,200" in texts
    shown = [label.get_text() for label in axes.get_yticklabels() if label.get_text().startswith("$class")]
    assert len(shown) == names
    assert all(len(text) == 24 for text in shown)


def test_the_picture_is_written(tmp_path: Path) -> None:
    draw_confusion(np.eye(2, dtype=np.int64), ["a", "b"], tmp_path / "out.png", "title")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_matrix_of_other_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a matrix \(3, 3\) for 3 classes, got \(2, 2\)"):
        draw_confusion(np.zeros((2, 2), dtype=np.int64), ["a", "b", "c"], tmp_path / "out.png", "title")
    assert not list(tmp_path.iterdir())
