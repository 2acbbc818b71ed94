"""A report as a page: one file of HTML, which loads nothing from anywhere and has no scripts; and as Markdown."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from senet.study.report.tables import difference_to, heading, is_cut, limits, measured_on, plain_markdown, report_rows

__all__ = ["as_html", "as_markdown"]

_ERROR, _DIFFERENCE = "top-1 error after the last epoch (%)", "difference (points)"


def as_html(data: Mapping[str, Any]) -> str:
    """A report as a page, light and dark, for any width.

    Args:
        data: of `senet.study.report.report_data.as_data`.
    """
    assets = resources.files("senet.study.report") / "assets"
    template, style = ((assets / name).read_text("utf-8") for name in ("report.html", "report.css"))
    parts = {
        "title": escape(heading(data)),
        "style": style,
        "eyebrow": f"Study, beside Table {escape(data['table'])}" if data["table"] else "Study",
        "about": escape(measured_on(data)),
        "said": "\n".join(f"<p>{escape(sentence)}</p>" for sentence in data["summary"]),
        "plot": _plot(data),
        "key": _key(data),
        "table": _table(data),
        "notes": "\n".join(f"<li>{escape(note)}</li>" for note in [*data["notes"], *data["study_notes"]]),
        "missing": _missing(data),
    }
    # In one pass, so that no part is looked through for the mark of another.
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(template.split("%%")))


def as_markdown(data: Mapping[str, Any]) -> str:
    """A report as Markdown, with report.png beside it.

    Args:
        data: of `senet.study.report.report_data.as_data`.
    """
    columns, rows = report_rows(data)
    verdicts = [(row[0], row[-1]) for row in rows]  # as a last column they would make every row tall
    shown = [" | ".join(map(plain_markdown, cells[:-1])) for cells in (columns, *rows)]
    lines = [
        f"# {plain_markdown(heading(data))}",
        "",
        f"{plain_markdown(measured_on(data))}.",
        "",
        *[f"- {plain_markdown(sentence)}" for sentence in data["summary"]],
        "",
        "![errors and differences of each arm](report.png)",
        "",
        f"| {shown[0]} |",
        f"|---|{'---:|' * (len(columns) - 2)}",
        *[f"| {row} |" for row in shown[1:]],
        "",
        *[f"- {plain_markdown(label)}: {verdict}" for label, verdict in verdicts],
        "",
        "How to read this:",
        "",
        *[f"- {plain_markdown(note)}" for note in [*data["notes"], *data["study_notes"]]],
    ]
    if data["left_out"]:
        lines += ["", "Runs that are missing:", ""]
        lines += [
            f"- {plain_markdown(one['arm'])}, seed {one['seed']}: {plain_markdown(one['reason'])}"
            for one in data["left_out"]
        ]
    return "\n".join(lines) + "\n"


def _plot(data: Mapping[str, Any]) -> str:
    parts = [
        '<div class="head"></div>',
        f'<div class="head">{escape(_ERROR)}</div>',
        f'<div class="head">{escape(difference_to(data))}, same seed (points; left is better)</div>',
    ]
    scales = {what: _Scale(*limits(data, what)) for what in ("errors", "differences")}
    for arm in data["arms"]:
        parts += [
            f'<div class="name">{escape(arm["label"])}<small>{escape(arm["verdict"])}</small></div>',
            _errors(scales["errors"], arm),
            _differences(scales["differences"], arm),
        ]
    parts += ['<div class="corner"></div>', scales["errors"].axis(_ERROR), scales["differences"].axis(_DIFFERENCE)]
    return "\n".join(parts)


class _Scale:
    """Places on a strip, in percent of its width."""

    def __init__(self, low: float, high: float) -> None:
        from matplotlib.ticker import MaxNLocator

        self.low, self.high = low, high
        ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
        self.ticks = [float(tick) for tick in ticks if low <= tick <= high]

    def at(self, value: float) -> str:
        place = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return f"left:{100 * place:.2f}%"

    def axis(self, what: str) -> str:
        # No digits but what the ticks need, and no minus zero.
        digits = max((len(f"{tick:.4f}".rstrip("0").partition(".")[2]) for tick in self.ticks), default=0)
        spans = (f'<span style="{self.at(tick)}">{round(tick, 4) + 0.0:.{digits}f}</span>' for tick in self.ticks)
        return f'<div class="axis" data-what="{escape(what)}">{"".join(spans)}</div>'

    def strip(self, label: str, inside: Sequence[str], what: str, zero: bool = False) -> str:
        lines = [f'<i style="{self.at(tick)}"></i>' for tick in self.ticks]
        lines += [f'<i class="zero" style="{self.at(0)}"></i>'] if zero else []
        return (
            f'<div class="strip" role="img" aria-label="{escape(label)}" data-what="{what}">'
            f"{''.join([*lines, *inside])}</div>"
        )

    def interval(self, mean: float, half: float, title: str, found: str) -> list[str]:
        ends = mean - half, mean + half
        # An interval that goes on beyond the strip ends in an arrow.
        cut = [name for name, off in (("low", ends[0] < self.low), ("high", ends[1] > self.high)) if off]
        left, right = (float(self.at(end)[5:-1]) for end in ends)
        return [
            f'<u class="{" ".join([*cut, found]).strip()}" style="left:{left}%;width:{right - left:.2f}%"></u>',
            f'<s class="{found}" style="{self.at(mean)}" title="{escape(title)}"></s>',
        ]

    def dots(self, seeds: Sequence[int], values: Sequence[float], form: str) -> list[str]:
        return [
            f'<b style="{self.at(value)}" title="seed {seed}: {value:{form}}"></b>'
            for seed, value in zip(seeds, values, strict=True)
        ]


def _errors(scale: _Scale, arm: Mapping[str, Any]) -> str:
    if not arm["errors"]:
        return scale.strip("no complete run", ['<span class="none">no complete run</span>'], "error")
    label = f"mean {arm['mean']:.2f}" + ("" if arm["half"] is None else f" ± {arm['half']:.2f}")
    inside = scale.dots(arm["seeds"], arm["errors"], ".2f")
    if arm["half"] is not None:
        inside = scale.interval(arm["mean"], arm["half"], label, "") + inside
    return scale.strip(f"{arm['label']}: {label} %, {len(arm['seeds'])} seeds", inside, "error")


def _differences(scale: _Scale, arm: Mapping[str, Any]) -> str:
    found, inside, label = arm["difference"], [], "no difference known"
    if found is not None:
        label = f"difference {found['mean']:+.2f}" + ("" if found["half"] is None else f" ± {found['half']:.2f}")
        inside = scale.dots(found["seeds"], found["values"], "+.2f")
        if found["half"] is not None:
            inside = scale.interval(found["mean"], found["half"], label, "found" * found["significant"]) + inside
    elif arm["without_baseline"]:
        label = "no baseline"
        inside.append(f'<span class="none">{label}</span>')
    elif not arm["baseline"]:
        label = "baseline"
    if arm["baseline"] and arm["paper"] and arm["paper"]["difference"] is not None:
        paper = f"{arm['paper']['difference']:+.2f} in the paper"
        label += f", {paper}"
        inside.append(f'<em style="{scale.at(arm["paper"]["difference"])}" title="{paper}"></em>')
    return scale.strip(f"{arm['label']}: {label}", inside, "difference", zero=True)


def _key(data: Mapping[str, Any]) -> str:
    """Of what is in the plot alone."""
    arms = data["arms"]
    found = [arm["difference"] for arm in arms if arm["difference"]]
    shown = [("<b style='left:50%'></b>", "a seed each")]
    if any(arm["half"] is not None for arm in arms):
        bar = "<u class='{0}' style='left:0;width:100%'></u><s class='{0}' style='left:50%'></s>"
        goes_on = "; an arrow where it goes on" if is_cut(data) else ""
        shown.append((bar.format(""), f"mean with its 95 % interval{goes_on}"))
        if any(one["significant"] for one in found):
            shown.append((bar.format("found"), "significant difference, after Holm's correction"))
    if any(arm["baseline"] and arm["paper"] and arm["paper"]["difference"] is not None for arm in arms):
        shown.append(("<em style='left:50%'></em>", "difference in the paper"))
    return "\n".join(f'<li><span class="strip">{mark}</span>{name}</li>' for mark, name in shown)


def _table(data: Mapping[str, Any]) -> str:
    columns, rows = report_rows(data)
    columns, rows = columns[:-1], [row[:-1] for row in rows]  # verdicts stand beside the plot
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = []
    for first, *cells in rows:
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body.append(f'<tr><th scope="row">{escape(first)}</th>{shown}</tr>')
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table>"


def _missing(data: Mapping[str, Any]) -> str:
    if not data["left_out"]:
        return ""
    items = (f"<li>{escape(one['arm'])}, seed {one['seed']}: {escape(one['reason'])}</li>" for one in data["left_out"])
    return '<h2>Runs that are missing</h2>\n<ul class="notes">\n' + "\n".join(items) + "\n</ul>"
