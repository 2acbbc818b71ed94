from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from senet.study.report import results
from senet.study.report.plots import draw_report
from senet.study.report.report import make_report
from senet.study.report.report_data import as_data
from senet.study.report.tables import effect
from tests.study.folders import by_arm, write_study


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Figure, dict[str, Any], Path]:
    """The figure itself, what it is of, and the file."""
    monkeypatch.setattr(results, "cost_of", lambda run: results.Cost(run.parameters, None, (32, 32)))
    figures = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    errors = by_arm(plain=[20.0, 21.0, 22.5], standard=[15.0, 16.01, 17.49], pre=[19.0, 20.9, 22.9], post=[23.0])
    write_study(tmp_path / "s", errors)
    data = as_data(make_report(tmp_path / "s"))
    draw_report(data, tmp_path / "report.png")
    return figures[0], data, tmp_path / "report.png"


def test_arms_from_top_to_bottom_with_every_seed(drawn: tuple[Figure, dict[str, Any], Path]) -> None:
    figure, data, path = drawn
    errors, differences = figure.axes
    assert [label.get_text() for label in errors.get_yticklabels()] == ["no SE", "standard", "PRE", "POST", "Identity"]
    assert errors.get_ylim()[0] > errors.get_ylim()[1]
    points = [line.get_xdata() for line in errors.lines if line.get_marker() == "o"]
    assert [list(map(float, one)) for one in points] == [one["errors"] for one in data["arms"] if one["errors"]]
    points = [line.get_xdata() for line in differences.lines if line.get_marker() == "o"]
    assert [list(map(float, one)) for one in points] == [
        one["difference"]["values"] for one in data["arms"] if one["difference"]
    ]
    paper = [float(line.get_xdata()[0]) for line in differences.lines if line.get_marker() == "D"]
    assert paper == pytest.approx([-1.02, -1.07, -0.52, -1.10])
    assert [text.get_text() for text in errors.texts] == ["no run"]
    with Image.open(path) as image:
        assert image.format == "PNG"


def test_the_mean_with_its_interval_and_what_is_significant(drawn: tuple[Figure, dict[str, Any], Path]) -> None:
    figure, data, _ = drawn
    errors, differences = figure.axes
    means = [float(line.get_xdata()[0]) for line in errors.lines if line.get_marker() == "s"]
    assert means == pytest.approx([one["mean"] for one in data["arms"] if one["half"] is not None])
    colours = [line.get_color() for line in differences.lines if line.get_marker() == "s"]
    significant = [one["difference"]["significant"] for one in data["arms"] if (one["difference"] or {}).get("half")]
    assert significant == [True, False]
    assert colours[0] != colours[1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "single seeds",
        "mean, 95 % interval",
        "better (significant, Holm)",
        "inconclusive difference",
        "difference in the paper",
    ]


@pytest.mark.parametrize(
    ("mean", "significant", "better", "expected"),
    [
        (-1.0, True, "lower", "better"),
        (1.0, True, "lower", "worse"),
        (1.0, True, "higher", "better"),
        (-1.0, True, "higher", "worse"),
        (-1.0, False, "lower", "inconclusive"),
    ],
)
def test_what_a_difference_means(mean: float, significant: bool, better: str, expected: str) -> None:
    assert effect({"metric": {"better": better}}, {"mean": mean, "significant": significant}) == expected


def test_narrow_figures_have_the_differences_below(drawn: tuple[Figure, dict[str, Any], Path], tmp_path: Path) -> None:
    draw_report(drawn[1], tmp_path / "narrow.png", narrow=True)
    with Image.open(tmp_path / "narrow.png") as image:
        assert image.width == 720
        assert image.height > image.width
