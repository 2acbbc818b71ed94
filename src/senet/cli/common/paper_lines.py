"""The paper's figures alongside counted ones, as data and as tables."""

from itertools import groupby
from math import log10
from typing import Any

from senet.cli.common.console import stdout, table
from senet.paper import TITLES

__all__ = ["as_data", "print_lines", "short"]


def as_data(compared: Any) -> dict[str, Any]:
    """Return a `senet.costs.tables.PaperComparison` as JSON values."""
    entry, cost = compared.entry, compared.cost
    return {
        "table": entry.table,
        "label": entry.label,
        "network": entry.network,
        "options": dict(entry.options),
        "size": entry.size,
        "original": entry.original,
        "top1_error": entry.top1,
        "top5_error": entry.top5,
        "paper_macs": entry.macs,
        "macs": None if cost is None else cost.macs,
        "macs_digit": entry.macs_digit,
        "macs_deviation": compared.macs_deviation,
        "macs_mismatch": entry.macs_mismatch,
        "paper_parameters": entry.params,
        "parameters": None if cost is None else cost.params,
        "parameters_digit": entry.params_digit,
        "parameters_deviation": compared.params_deviation,
        "parameters_mismatch": entry.params_mismatch,
        "note": entry.note,
    }


def print_lines(lines: list[dict[str, Any]], *, together: bool = False) -> None:
    """Print a table for each of the paper's tables, with mismatches marked and explained below.

    Args:
        lines: results of `as_data`.
        together: whether to print one table for all.
    """
    if together and lines:
        labels = [f"{_title(line['table'])}, {line['label']}" for line in lines]
        _print_table("", labels, lines)
        return
    for number, group in groupby(lines, key=lambda line: line["table"]):
        found = list(group)
        title = TITLES[number] if number == _title(number) else f"{_title(number)}: {TITLES[number]}"
        _print_table(title, [line["label"] for line in found], found)


def _title(number: str) -> str:
    return f"Table {number}" if number.isdigit() else number


def _print_table(title: str, labels: list[str], lines: list[dict[str, Any]]) -> None:
    notes = list(dict.fromkeys(line["note"] for line in lines if line["note"]))
    columns, rows = ["in the paper", "here"], [[label, _call(line)] for label, line in zip(labels, lines, strict=True)]
    if any(line["original"] for line in lines):
        columns.append("original error")
        _append(rows, [_errors(line["original"], 1) for line in lines])
    columns.append("error")
    _append(
        rows, [_errors((line["top1_error"], line["top5_error"]), 1 if line["table"] == "3" else 2) for line in lines]
    )
    for what, name in (("macs", "multiply-adds"), ("parameters", "parameters")):
        if any(line[f"paper_{what}"] for line in lines):
            columns += [name, "counted", "differs"]
            for row, line in zip(rows, lines, strict=True):
                row += _figures(line, what)
    if notes:
        columns.append("note")
        _append(rows, [f"[{notes.index(line['note']) + 1}]" if line["note"] else "" for line in lines])
    stdout.print()
    table(title, columns, rows, text=2)
    for index, text in enumerate(notes, 1):
        stdout.print(f"[{index}] {text}")


def _append(rows: list[list[str]], cells: list[str]) -> None:
    for row, cell in zip(rows, cells, strict=True):
        row.append(cell)


def _call(line: dict[str, Any]) -> str:
    """Return the network and its options, as `senet models` takes them."""
    options = "".join(f" {key}={str(value).lower()}" for key, value in line["options"].items())
    return f"{line['network'] or '-'}{options}"


def _errors(errors: tuple[float | None, float | None] | None, digits: int) -> str:
    """Return errors with the digits of the table, or more where an error has more."""
    if errors is None or errors == (None, None):
        return "-"
    return "/".join("-" if e is None else f"{e:.{max(digits, len(f'{e:g}'.partition('.')[2]))}f}" for e in errors)


def _figures(line: dict[str, Any], what: str) -> list[str]:
    figure, count, digit = line[f"paper_{what}"], line[what], line[f"{what}_digit"]
    if figure is None:
        return ["-", "-", "-"]
    if count is None:
        return [short(figure, digit), "-", "-"]
    mark = " !" if line[f"{what}_mismatch"] else ""
    return [
        short(figure, digit),
        short(count, digit, 1),
        f"{round(100 * line[f'{what}_deviation'], 1) + 0.0:+.1f} %{mark}",
    ]


def short(count: float, digit: float, more: int = 0) -> str:
    """Return a count with the paper's digits, or more.

    Args:
        count: parameters or multiply-adds.
        digit: value of one unit in the paper's last digit.
        more: additional digits.
    """
    if digit == 1:
        return f"{round(count):,}"
    unit, suffix = (1e9, "G") if count >= 1e9 else (1e6, "M")
    return f"{count / unit:.{max(0, round(log10(unit / digit))) + more}f} {suffix}"
