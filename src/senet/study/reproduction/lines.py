"""Results of the paper's rows as lines of text, the same in the terminal and on the page."""

from collections.abc import Sequence
from typing import get_args

from senet.paper import TITLES
from senet.study.reproduction.commands import TABLE_NOTES, study_command
from senet.study.reproduction.rows import Measured, RelatedArm, Reproduction, Row, Status

__all__ = [
    "PLACEHOLDERS",
    "command_lines",
    "errors_title",
    "measured_line",
    "network_cell",
    "paper_errors",
    "related_line",
    "result_cell",
    "row_label",
    "status_summary",
    "table_notes",
    "table_title",
]

PLACEHOLDERS = (
    "IMAGENET stands for a folder with train/ and val/ of class folders, or any other spec of senet train --data; "
    "CIFAR and PLACES for the folders of torchvision's data sets; COCO for a folder with train/, train.json, val/ and "
    "val.json; the .caffemodel files are the authors' release. On "
    "several processes or machines: torchrun ... -m senet train, and senet study --ray."
)

_STATUS_TEXTS: dict[Status, str] = {
    "measured": "measured as in the paper",
    "other settings": "measured with other settings",
    "related": "with a related study of another network or other data",
    "missing": "missing",
    "unsupported": "that senet cannot measure",
}


def table_title(table: str) -> str:
    """Return the title of a table.

    Args:
        table: key of `senet.paper.TITLES`.
    """
    title = TITLES[table]
    return f"Table {table}: {title}" if table.isdigit() else f"Beyond the tables: {title}"


def status_summary(reproduction: Reproduction) -> str:
    """Return the number of rows of each status, in a line."""
    found = [row.status for row in reproduction.rows]
    parts = [f"{found.count(status)} {_STATUS_TEXTS[status]}" for status in get_args(Status) if status in found]
    return f"Of {len(found)} rows: {', '.join(parts)}."


def row_label(row: Row) -> str:
    """Return the paper's label of a row, with the image size in tables where it varies."""
    size = row.entry.size
    return row.entry.label + (f" ({size}x{size})" if row.entry.table in ("8", "9") else "")


def network_cell(row: Row) -> str:
    """Return a row's network and options as commands take them; empty where senet has no such network."""
    options = "".join(f" {key}={str(value).lower()}" for key, value in row.entry.options.items())
    return f"{row.entry.network}{options}"


def errors_title(rows: Sequence[Row]) -> str:
    """Return the head of the column of `paper_errors`."""
    return "error %" if any(row.entry.precision is None for row in rows) else "AP50/AP %"


def paper_errors(row: Row) -> str:
    """Return the paper's errors in percent, top-1/top-5; AP for detection."""
    entry = row.entry
    if entry.precision is not None:
        return f"AP {entry.precision[0]:.1f}/{entry.precision[1]:.1f}"
    digits = 3 if entry.table == "challenge" else 1 if entry.table == "3" else 2
    return "/".join("-" if error is None else f"{error:.{digits}f}" for error in (entry.top1, entry.top5))


def result_cell(row: Row) -> str:
    """Return the result of a row, or its status, in a few words."""
    if row.measured:
        best = min(row.measured, key=lambda one: (len(one.deviations), -len(one.seeds)))
        return _with_half(best.mean, best.half) + (", with other settings" if best.deviations else "")
    return {"related": "related study", "missing": "missing"}.get(row.status, "not with senet")


def measured_line(one: Measured) -> str:
    """Return a result of a row: error, seeds, data, and deviations from the paper's experiment."""
    deviations = f"; unlike the paper: {', '.join(one.deviations)}" if one.deviations else ""
    error = f"{_with_half(one.mean, one.half)} % ({_seeds(len(one.seeds))}; {one.second} {one.top5:.2f} %)"
    return f"{error} on {one.where}{deviations}"


def related_line(arm: RelatedArm) -> str:
    """Return a related arm: network, data, error, and difference to its baseline."""
    line = f"{arm.network} on {arm.where}: {_with_half(arm.mean, arm.half)} % ({_seeds(arm.seeds)})"
    if arm.difference is None:
        return line
    if arm.difference_half is None:
        return f"{line}; {arm.difference:+.2f} to {arm.baseline}, one seed"
    significance = "significant" if arm.significant else "not significant"
    return f"{line}; {arm.difference:+.2f} ± {arm.difference_half:.2f} to {arm.baseline}, {significance}"


def table_notes(table: str, rows: list[Row]) -> list[str]:
    """Return notes on a table: how its commands differ from the paper, and what senet cannot do."""
    found = {
        row.commands.limitation: row.entry.label.removeprefix("SE-")
        for row in rows
        if row.commands and row.commands.limitation
    }
    notes = [TABLE_NOTES.get(table, ""), *(f"{label}: without {text}." for text, label in found.items())]
    return [note for note in notes if note]


def command_lines(table: str, rows: list[Row]) -> list[str]:
    """Return the commands for the rows of a table that are not measured as in the paper, each once."""
    missing = [row.commands for row in rows if row.status != "measured" and row.commands is not None]
    study = study_command(table)
    if study is not None and missing:
        return [study]
    return list(dict.fromkeys(line for commands in missing for line in commands.lines))


def _with_half(mean: float, half: float | None) -> str:
    return f"{mean:.2f}" + ("" if half is None else f" ± {half:.2f}")


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
