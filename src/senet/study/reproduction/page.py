"""The paper's tables beside what was measured here, as lines of text: for the terminal, and as Markdown."""

from senet.paper import TITLES
from senet.study.report.tables import plain_markdown, short_paths
from senet.study.reproduction.commands import TABLE_NOTES, study_command
from senet.study.reproduction.reproduction import Beside, Measured, Reproduction, Row

__all__ = [
    "PLACEHOLDERS",
    "as_page",
    "beside_line",
    "commands",
    "counted",
    "lacking",
    "measured_line",
    "paper_figure",
    "state",
    "title_of",
]

PLACEHOLDERS = (
    "IMAGENET stands for a folder with train/ and val/ of class folders, or any other spec of senet train --data; "
    "CIFAR and PLACES for the folders of torchvision's data sets; the .caffemodel files are the authors' release. On "
    "several processes or machines: torchrun ... -m senet train, and senet study --ray."
)

HEAD = """\
# Reproduce the paper

Every table of the paper (Hu, Shen, Albanie, Sun and Wu, arXiv 1709.01507): its errors in percent, what was measured
with senet, and the command for what was not.

```sh
senet paper                       # this page in the terminal
senet paper runs/ --table 14      # Table 14, with what your runs have measured
senet paper runs/ --write mine.md
```

A run counts for a row if its network, its SE options and its data set are the row's, told by the classes and the images
and not by a name; what else differs from the paper, epochs or a part of the images, is said with it. Studies of other
networks or on other data stand beside a row, and are called so.
"""

_STATUS = {
    "measured": "measured as in the paper",
    "otherwise": "measured with other settings",
    "beside": "with a study of another network or other data beside it",
    "missing": "missing",
    "impossible": "that senet cannot measure",
}


def title_of(table: str) -> str:
    """What a table is called.

    Args:
        table: key of `senet.paper.TITLES`.
    """
    title = TITLES[table]
    return f"Table {table}: {title}" if table.isdigit() else f"Beyond the tables: {title}"


def counted(reproduction: Reproduction) -> str:
    """How many rows there are of each kind, in a line."""
    states = [row.status for row in reproduction.rows]
    parts = [f"{states.count(key)} {text}" for key, text in _STATUS.items() if states.count(key)]
    return f"Of {len(states)} rows: {', '.join(parts)}."


def paper_figure(row: Row) -> str:
    """The paper's errors; of detection, its AP."""
    entry = row.entry
    if entry.precision is not None:
        return f"AP {entry.precision[0]:.1f}/{entry.precision[1]:.1f}"
    digits = 3 if entry.table == "challenge" else 1 if entry.table == "3" else 2
    return "/".join("-" if error is None else f"{error:.{digits}f}" for error in (entry.top1, entry.top5))


def measured_line(one: Measured) -> str:
    """Runs of a row: on what, and in what they are not as in the paper."""
    half = "" if one.half is None else f" ± {one.half:.2f}"
    seeds = "1 seed" if len(one.seeds) == 1 else f"{len(one.seeds)} seeds"
    differs = f"; not as in the paper: {', '.join(one.deviations)}" if one.deviations else ""
    return f"{one.mean:.2f}{half} % ({seeds}; top-5 {one.top5:.2f} %) on {one.where}{differs}"


def beside_line(one: Beside) -> str:
    """An arm of a study: which network on what, and its difference."""
    half = "" if one.half is None else f" ± {one.half:.2f}"
    seeds = "1 seed" if one.seeds == 1 else f"{one.seeds} seeds"
    line = f"{one.network} on {one.where}: {one.mean:.2f}{half} % ({seeds})"
    if one.difference is None:
        return line
    if one.difference_half is None:
        return f"{line}; {one.difference:+.2f} to {one.baseline}, of one seed"
    said = "significant" if one.significant else "not significant"
    return f"{line}; {one.difference:+.2f} ± {one.difference_half:.2f} to {one.baseline}, {said}"


def commands(table: str, rows: list[Row]) -> list[str]:
    """What to run for the rows of a table that are not measured as in the paper, each line once."""
    missing = [row for row in rows if row.status != "measured" and row.way is not None]
    study = study_command(table)
    if study is not None and missing:
        return [study]
    return list(dict.fromkeys(line for row in missing if row.way is not None for line in row.way.command))


def as_page(reproduction: Reproduction) -> str:
    """All tables as Markdown.

    Args:
        reproduction: of `senet.study.reproduction.reproduction.reproduce`.
    """
    parts = [HEAD, f"{counted(reproduction)}\n\n{plain_markdown(PLACEHOLDERS)}\n"]
    for table, rows in reproduction.tables():
        parts.append(f"## {plain_markdown(title_of(table))}\n\n{_table(rows)}")
        details = [
            f"- {plain_markdown(row.entry.label)}: {plain_markdown(line)}"
            for row in rows
            for line in map(measured_line, row.measured)
        ]
        details += [
            f"- beside {plain_markdown(row.entry.label)}: {plain_markdown(line)}"
            for row in rows
            for line in map(beside_line, row.beside)
        ]
        if details:
            parts.append("\n".join(details) + "\n")
        said = [TABLE_NOTES.get(table, ""), *lacking(rows)]
        if any(said):
            parts.append("\n\n".join(plain_markdown(text) for text in said if text) + "\n")
        lines = commands(table, rows)
        if lines:
            parts.append("```sh\n" + "\n".join(lines) + "\n```\n")
    if reproduction.unused:
        parts.append(
            "## Of no row\n\n"
            + "\n".join(f"- {plain_markdown(short_paths(text))}" for text in reproduction.unused)
            + "\n"
        )
    return "\n".join(parts)


def _table(rows: list[Row]) -> str:
    lines = ["| in the paper | here | error % | measured |", "|---|---|---:|---|"]
    for row in rows:
        options = "".join(f" {key}={str(value).lower()}" for key, value in row.entry.options.items())
        here = f"`{row.entry.network}{options}`" if row.entry.network else ""
        size = f" ({row.entry.size}x{row.entry.size})" if row.entry.table in ("8", "9") else ""
        cells = [plain_markdown(row.entry.label) + size, here, paper_figure(row), plain_markdown(state(row))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def state(row: Row) -> str:
    """What there is of a row, in a few words."""
    if row.measured:
        best = min(row.measured, key=lambda one: (len(one.deviations), -len(one.seeds)))
        text = f"{best.mean:.2f}" + ("" if best.half is None else f" ± {best.half:.2f}")
        return text + (", with other settings" if best.deviations else "")
    return {"beside": "a study beside it", "missing": "missing", "impossible": "not with senet"}[row.status]


def lacking(rows: list[Row]) -> list[str]:
    """What senet cannot do as the paper did, of some rows."""
    found = {row.way.lacking: row.entry.label.removeprefix("SE-") for row in rows if row.way and row.way.lacking}
    return [f"{label}: without {text}." for text, label in found.items()]
