"""A report as a page: one HTML file that loads nothing and has no scripts; and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from senet.study.report.axes import Axis, is_cut, limits
from senet.study.report.tables import (
    EFFECTS,
    axis_of_metric,
    better_side,
    difference_to,
    effect,
    heading,
    measured_on,
    report_rows,
)
from senet.utils.templates import render

__all__ = ["as_html", "as_markdown"]


def as_html(data: Mapping[str, Any]) -> str:
    """Return a report as a page, light and dark, for any width.

    Args:
        data: see `senet.study.report.report_data.as_data`.
    """
    errors, differences = (Axis(*limits(data, what)) for what in ("errors", "differences"))
    unit = f" {data['metric']['unit']}".rstrip()
    return render(
        __package__,
        "report.html.jinja",
        **_content(data),
        table=data["table"],
        arms=[
            {
                "label": arm["label"],
                "verdict": arm["verdict"],
                "errors": _error_strip(errors, arm, unit),
                "differences": _difference_strip(differences, arm, data),
            }
            for arm in data["arms"]
        ],
        error_axis=axis_of_metric(data),
        error_labels=errors.labels,
        difference_axis=difference_to(data),
        difference_labels=differences.labels,
        better_side=better_side(data),
        key=_key(data),
    )


def as_markdown(data: Mapping[str, Any]) -> str:
    """Return a report as Markdown, with report.png as its figure.

    Args:
        data: see `senet.study.report.report_data.as_data`.
    """
    return render(__package__, "report.md.jinja", **_content(data), arms=data["arms"])


def _content(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what both pages have."""
    columns, rows = report_rows(data)
    return {
        "title": heading(data),
        "about": measured_on(data),
        "summary": data["summary"],
        "columns": columns[:-1],  # verdicts are long, and stand apart from the table
        "rows": [row[:-1] for row in rows],
        "notes": [*data["notes"], *data["study_notes"]],
        "missing": data["left_out"],
    }


@dataclass(frozen=True)
class _Mark:
    """A mark on a strip: its position in percent of the width, and what the mouse shows."""

    left: float
    title: str


@dataclass(frozen=True, kw_only=True)
class _Interval:
    """A mean with its interval: positions in percent of the width, and the effect if it is a difference."""

    left: float = 0.0
    width: float = 100.0
    mean: float = 50.0
    cut: tuple[str, ...] = ()
    effect: str = ""
    title: str = ""

    @property
    def classes(self) -> str:
        """CSS classes: "low" and "high" for ends that are cut off, and the effect."""
        return " ".join([*self.cut, *([self.effect] if self.effect else [])])


@dataclass(frozen=True, kw_only=True)
class _Strip:
    """The plot of an arm on one axis."""

    what: str
    label: str
    ticks: Sequence[float]
    dots: Sequence[_Mark] = ()
    interval: _Interval | None = None
    zero: float | None = None
    paper: _Mark | None = None
    text: str = ""


def _error_strip(axis: Axis, arm: Mapping[str, Any], unit: str) -> _Strip:
    ticks = [axis.position(tick) for tick in axis.ticks]
    if not arm["errors"]:
        return _Strip(what="error", label="no complete run", ticks=ticks, text="no complete run")
    mean = f"mean {arm['mean']:.2f}" + ("" if arm["half"] is None else f" ± {arm['half']:.2f}")
    return _Strip(
        what="error",
        label=f"{arm['label']}: {mean}{unit}, {len(arm['seeds'])} seeds",
        ticks=ticks,
        dots=_dots(axis, arm["seeds"], arm["errors"], ".2f"),
        interval=None if arm["half"] is None else _interval(axis, arm["mean"], arm["half"], mean),
    )


def _difference_strip(axis: Axis, arm: Mapping[str, Any], data: Mapping[str, Any]) -> _Strip:
    ticks = [axis.position(tick) for tick in axis.ticks]
    strip = _Strip(what="difference", label="no difference known", ticks=ticks, zero=axis.position(0))
    found = arm["difference"]
    if found is not None:
        label = f"difference {found['mean']:+.2f}" + ("" if found["half"] is None else f" ± {found['half']:.2f}")
        strip = replace(strip, label=label, dots=_dots(axis, found["seeds"], found["values"], "+.2f"))
        if found["half"] is not None:
            interval = _interval(axis, found["mean"], found["half"], label)
            strip = replace(strip, interval=replace(interval, effect=effect(data, found)))
    elif arm["without_baseline"]:
        strip = replace(strip, label="no baseline", text="no baseline")
    elif not arm["baseline"]:
        strip = replace(strip, label="baseline")
    if _has_paper_difference(arm):
        paper = f"{arm['paper']['difference']:+.2f} in the paper"
        mark = _Mark(axis.position(arm["paper"]["difference"]), paper)
        strip = replace(strip, label=f"{strip.label}, {paper}", paper=mark)
    return replace(strip, label=f"{arm['label']}: {strip.label}")


def _interval(axis: Axis, mean: float, half: float, title: str) -> _Interval:
    low, high = mean - half, mean + half
    left = axis.position(low)
    return _Interval(
        left=left,
        width=round(axis.position(high) - left, 2),
        mean=axis.position(mean),
        cut=(*(["low"] if low < axis.low else []), *(["high"] if high > axis.high else [])),
        title=title,
    )


def _dots(axis: Axis, seeds: Sequence[int], values: Sequence[float], form: str) -> list[_Mark]:
    return [
        _Mark(axis.position(value), f"seed {seed}: {value:{form}}") for seed, value in zip(seeds, values, strict=True)
    ]


def _has_paper_difference(arm: Mapping[str, Any]) -> bool:
    return bool(arm["baseline"] and arm["paper"] and arm["paper"]["difference"] is not None)


def _key(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return which marks the plot has."""
    arms = data["arms"]
    intervals = [arm["difference"] for arm in arms if arm["difference"] and arm["difference"]["half"] is not None]
    found = {effect(data, difference) for difference in intervals}
    return {
        "interval": _Interval() if any(arm["half"] is not None for arm in arms) else None,
        "cut": is_cut(data),
        "effects": [_Interval(effect=one) for one in EFFECTS if one in found],
        "paper": any(map(_has_paper_difference, arms)),
    }
