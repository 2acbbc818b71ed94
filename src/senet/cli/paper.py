"""`senet paper`: every table of the paper, what was measured of it here, and the command for what was not."""

from typing import TYPE_CHECKING, Annotated

import typer

from senet.cli.common.console import JsonOption, note, print_json, stdout, table
from senet.cli.common.outputs import check_file_option

if TYPE_CHECKING:
    from senet.study.reproduction.reproduction import Reproduction, Row

__all__ = ["paper"]


def paper(
    folders: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR...]",
            help="Output folders of senet train and senet study, or folders of such; or a study's report.json.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--table", metavar="N", help="This table alone: 2 to 16, release, schedule, challenge. Repeatable."
        ),
    ] = None,
    write: Annotated[
        str | None, typer.Option("--write", metavar="OUT.md", help="Write all tables as Markdown, and print none.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the paper's tables, what runs and studies here have measured of them, and how to measure the rest.

    A run counts for a row by its network, SE options and data set; what else differs is said. Studies of other networks
    or on other data stand beside.
    """
    from senet.paper import TITLES
    from senet.study.reproduction.page import as_page
    from senet.study.reproduction.reproduction import reproduce
    from senet.utils.errors import unknown_name
    from senet.utils.files import atomic_path

    for key in only or []:
        if key not in TITLES:
            raise ValueError(unknown_name("table", key, TITLES))
    check_file_option("--write", write, suffixes=(".md",))
    if write is not None and (only or json):
        raise ValueError("--write is for all tables as a page; leave out --table and --json")
    found = reproduce(folders or [])
    if write is not None:
        with atomic_path(write) as temporary:
            temporary.write_text(as_page(found), encoding="utf-8")
        note(f"wrote {write}")
    elif json:
        print_json([row for row in found.as_data() if not only or row["table"] in only])
    else:
        _print(found, only or [])
    for text in found.unused:
        note(f"left out: {text}", style="yellow")


def _print(found: "Reproduction", only: list[str]) -> None:
    from senet.study.reproduction.page import PLACEHOLDERS, counted

    stdout.print(counted(found))
    for key, rows in found.tables():
        if not only or key in only:
            _print_table(key, rows)
    stdout.print(f"\n{PLACEHOLDERS}")


def _print_table(key: str, rows: "list[Row]") -> None:
    from senet.study.reproduction import page
    from senet.study.reproduction.commands import TABLE_NOTES

    cells = []
    for row in rows:
        options = "".join(f" {name}={str(value).lower()}" for name, value in row.entry.options.items())
        size = f" {row.entry.size}x{row.entry.size}" if key in ("8", "9") else ""
        cells.append([row.entry.label + size, f"{row.entry.network}{options}", page.paper_figure(row), page.state(row)])
    stdout.print()
    table(page.title_of(key), ["in the paper", "here", "error %", "measured"], cells, text=2)
    for row in rows:
        for measured in row.measured:
            stdout.print(f"{row.entry.label}: {page.measured_line(measured)}", soft_wrap=True)
        for beside in row.beside:
            stdout.print(f"beside {row.entry.label}: {page.beside_line(beside)}", soft_wrap=True)
    for text in (TABLE_NOTES.get(key, ""), *page.lacking(rows)):
        if text:
            stdout.print(text)
    for line in page.commands(key, rows):
        stdout.print(f"  {line}", soft_wrap=True)  # in one piece, to be copied
