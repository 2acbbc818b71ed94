"""Pictures of the documentation show the numbers of its pages, and exist for light and dark, wide and narrow pages."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import senet

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PICTURES = re.compile(r"!\[([^\]]*)\]\(([\w/.-]+)\.png#gh-(light|dark)-mode-only\)")
NARROW_TOO = re.compile(
    r'<picture>\n  <source media="\(max-width: 600px\)" srcset="([\w/-]+)-narrow(-dark|)\.png">\n'
    r'  <img src="\1\2\.png#gh-(light|dark)-mode-only"\s+alt="([^"]+)">\n</picture>'
)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the scripts of docs and benchmarks importable."""
    for folder in ("docs", "benchmarks"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    yield
    for name in ("overview", "page_charts", "ratio_chart", "measured_tables"):
        sys.modules.pop(name, None)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **options: figures.append(figure))
    return figures


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_picture_is_there_for_light_and_dark_pages(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    both = NARROW_TOO.findall(text)
    assert len(both) == text.count("<picture>")
    for name, dark, _, _ in both:
        with Image.open(page.parent / f"{name}-narrow{dark}.png") as image:
            assert image.width == 720
    found = PICTURES.findall(text) + [(alt, f"{name}{dark}", mode) for name, dark, mode, alt in both]
    for (alt, name, mode), (dark_alt, dark_name, dark_mode) in zip(found[::2], found[1::2], strict=True):
        assert (mode, dark_mode, dark_name, dark_alt) == ("light", "dark", f"{name}-dark", alt)
        sizes = []
        for one in (name, dark_name):
            with Image.open(page.parent / f"{one}.png") as image:
                sizes.append(image.size)
        assert sizes[0] == sizes[1]
        assert sizes[0][0] >= 1400


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "index.md"], ids=lambda page: page.name)
def test_narrow_pages_have_a_picture_of_their_own(page: Path) -> None:
    found = re.findall(r'(?:src|srcset)="([\w/.-]+)(?:#[\w-]+)?"', page.read_text(encoding="utf-8"))
    names = {Path(one).name for one in found}
    assert names == {f"overview{narrow}{dark}.png" for narrow in ("", "-narrow") for dark in ("", "-dark")}
    for one in found:
        with Image.open(page.parent / one) as image:
            assert (image.width < image.height) == ("narrow" in one)


@pytest.mark.usefixtures("scripts")
def test_numbers_of_a_table(tmp_path: Path) -> None:
    from measured_tables import Ratio, headings, read_ratios

    page = tmp_path / "page.md"
    page.write_text(
        "### one\n\n| network | train | to its twin | speed |\n| --- | ---: | ---: | ---: |\n"
        "| `a` | 1 | - | 1,200 |\n| `b` | 1.5 ? (1.25 to 1.75) | -0.5 (-0.75 to +0.25); more | - |\n\n### two\n\ntext\n"
    )
    assert headings(page) == ["one"]
    assert read_ratios(page, "one") == {
        "a": {"train": Ratio(1, 1, 1), "speed": Ratio(1, 1, 1)},
        "b": {"train": Ratio(1.5, 1.25, 1.75), "train, to its twin": Ratio(-0.5, -0.75, 0.25)},
    }
    for heading in ("two", "three"):
        with pytest.raises(ValueError, match=f"page.md has no table below '### {heading}'"):
            read_ratios(page, heading)


@pytest.mark.usefixtures("scripts")
def test_a_chart_has_a_dot_with_its_interval_for_each_ratio(tmp_path: Path, drawn: list[Figure]) -> None:
    from page_charts import draw_cpu, draw_fine_tuning, draw_gpu

    for draw, page, count in ((draw_cpu, "performance.md", 3), (draw_gpu, "performance.md", 1)):
        draw(DOCS / page, tmp_path)
        for axes in drawn[-1].axes:
            assert axes.get_xlim()[0] > 0.7  # not from zero
        assert len(drawn[-1].axes) == count
    cpu, gpu = drawn[0], drawn[4]  # light and wide; the others are narrow, or dark
    assert [label.get_text() for label in cpu.axes[2].get_yticklabels()] == ["se_resnet20"]
    found: dict[float, list[tuple[float, ...]]] = {}
    for container in gpu.axes[0].containers:
        (line, _, (bars,)) = container.lines
        (segment,) = bars.get_segments()
        ends = tuple(round(float(end[0]), 3) for end in segment)
        found.setdefault(float(line.get_xdata()[0]), []).append(ends)
    assert found[0.865] == [(0.864, 0.866)]  # what the README says
    assert (1.443, 1.445) in found[1.444]  # of timm
    draw_fine_tuning(DOCS / "fine-tuning.md", tmp_path)
    rows = [label.get_text() for label in drawn[8].axes[0].get_yticklabels()]
    assert rows[:2] == ["se x1", "se x10"]
    assert "plain" not in rows
    assert [text.get_text() for text in drawn[9].axes[0].texts] == rows  # above the dots


@pytest.mark.usefixtures("scripts")
def test_overview_shows_a_recording_at_the_sites_of_the_network(tmp_path: Path, drawn: list[Figure]) -> None:
    import overview

    recorded: Any = json.loads(overview.RECORDED.read_text(encoding="utf-8"))
    sites = senet.find_sites(senet.create_model("resnet20"))
    for block, site in zip(recorded["blocks"], sites, strict=True):
        assert np.array(block["means"]).shape == (10, site.channels)
    overview.draw(tmp_path / "overview.png", narrow=True)
    maps = [axes.images[0].get_array() for axes in drawn[0].axes if axes.images]
    assert len(maps) == 9
    means = np.array(recorded["blocks"][8]["means"])
    np.testing.assert_array_equal(np.sort(maps[8], axis=1), np.sort(means, axis=1))
    texts = [text.get_text() for axes in drawn[0].axes for text in axes.texts]
    assert {"0.865", "1.444", "1.026", "1.366"} <= set(texts)
