from pathlib import Path

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_rgb, to_rgba
from PIL import Image

from senet.utils.figure_style import COLOURS, figure_theme, save_figure, styled, theme


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))


def contrast(colour: str, page: str) -> float:
    low, high = sorted((luminance(colour), luminance(page)))
    return (high + 0.05) / (low + 0.05)


@styled
def draw(path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.suptitle("a title")
    save_figure(figure, path)


@pytest.mark.parametrize(("name", "page", "alpha"), [("light", "#ffffff", 255), ("dark", "#14171c", 0)])
def test_a_theme(tmp_path: Path, name: str, page: str, alpha: int) -> None:
    before = dict(rcParams)
    with figure_theme(name):  # type: ignore[arg-type]
        draw(tmp_path / "a.png")
        inks = (theme().ink, theme().muted)
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels[0, 0, 3] == alpha  # dark figures are transparent
    text = pixels[pixels[..., 3] == 255].reshape(-1, 4)
    assert (np.abs(text / 255 - to_rgba(inks[0])).max(1) < 0.01).any()
    assert contrast(inks[0], page) > 12
    assert contrast(inks[1], page) > 4.5  # level AA of WCAG
    assert all(contrast(colour, page) > 2 for colour in COLOURS)
    assert dict(rcParams) == before
    assert theme().page == "#ffffff"  # the default again


def test_dark_figures_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dark").mkdir()
    monkeypatch.setenv("SENET_DARK_FIGURES", str(tmp_path / "dark"))
    draw(tmp_path / "a.png")
    for path, alpha in ((tmp_path / "a.png", 255), (tmp_path / "dark" / "a.png", 0)):
        with Image.open(path) as image:
            assert image.convert("RGBA").getpixel((0, 0))[3] == alpha  # type: ignore[index]
    with figure_theme("dark"):
        draw(tmp_path / "b.png")
    assert [path.name for path in (tmp_path / "dark").iterdir()] == ["a.png"]
