"""`senet paper`: every table of the paper, the results measured here, and the commands for the rest."""

from typing import TYPE_CHECKING, Annotated

import typer

from senet.cli.common.console import JsonOption, note, print_json, stdout, table
from senet.cli.common.outputs import check_file_option

if TYPE_CHECKING:
    from senet.study.reproduction.rows import Reproduction, Row

__all__ = ["paper"]


def paper(
    folders: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR...]",
            help="Output folders of senet train and senet study, folders of such folders, or a study's report.json.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--table", metavar="N", help="Show only this table: 2 to 16, release, schedule, challenge. Repeatable."
        ),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option("--write", metavar="OUT.md", help="Write all tables as Markdown, print none."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the paper's tables alongside the results of your runs, and the commands that measure the rest.

    A run measures a row if its network, SE options and data set are the row's; other differences are listed. Studies of
    other networks or on other data are listed as related.
    """
    from senet.paper import TITLES
    from senet.utils.errors import unknown_name
    from senet.utils.files import atomic_path

    for key in only or []:
        if key not in TITLES:
            raise ValueError(unknown_name("table", key, TITLES))
    check_file_option("--write", write, suffixes=(".md",))
    if write is not None and (only or json):
        raise ValueError("--write writes all tables; leave out --table and --json")
    # These import PyTorch, which takes seconds: invalid options are refused at once.
    from senet.study.reproduction.page import as_markdown
    from senet.study.reproduction.reproduction import reproduce

    found = reproduce(folders or [])
    if write is not None:
        with atomic_path(write) as temporary:
            temporary.write_text(as_markdown(found), encoding="utf-8")
        note(f"wrote {write}")
    elif json:
        print_json([row for row in found.as_data() if not only or row["table"] in only])
    else:
        _print(found, only or [])
    for text in found.unused:
        note(f"left out: {text}", style="yellow")


def _print(found: "Reproduction", only: list[str]) -> None:
    from senet.study.reproduction.lines import PLACEHOLDERS, status_summary

    stdout.print(status_summary(found))
    for key, rows in found.tables():
        if not only or key in only:
            _print_table(key, rows)
    stdout.print(f"\n{PLACEHOLDERS}")


def _print_table(key: str, rows: "list[Row]") -> None:
    from senet.study.reproduction import lines

    cells = [
        [lines.row_label(row), lines.network_cell(row), lines.paper_errors(row), lines.result_cell(row)] for row in rows
    ]
    stdout.print()
    table(lines.table_title(key), ["in the paper", "here", lines.errors_title(rows), "measured"], cells, text=2)
    for row in rows:
        for measured in row.measured:
            stdout.print(f"{row.entry.label}: {lines.measured_line(measured)}", soft_wrap=True)
        for arm in row.related:
            stdout.print(f"related to {row.entry.label}: {lines.related_line(arm)}", soft_wrap=True)
    for text in lines.table_notes(key, rows):
        stdout.print(text)
    for line in lines.command_lines(key, rows):
        stdout.print(f"  {line}", soft_wrap=True)  # one line, so that it can be copied
