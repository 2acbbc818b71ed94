"""`senet study report`: compare the arms of a study, as a table and as files in its folder."""

from pathlib import Path
from typing import Any

from senet.cli.common.console import note, print_json, stdout, table

__all__ = ["report"]


def report(folder: str | Path, *, baseline: str | None = None, json: bool = False) -> None:
    """Print a study's table, and write report.html, report.md, report.png and report.json into its folder.

    Args:
        folder: output folder of `senet study`.
        baseline: name of the arm to compare to; the study's own unless given.
        json: whether to print JSON instead of the table.

    Raises:
        ValueError: no study, no complete run, an unknown arm, or scipy is missing.
        OSError: a file cannot be written.
    """
    from senet.study.report.report import make_report
    from senet.study.report.report_data import as_data
    from senet.study.report.writing import write_report

    found = make_report(folder, baseline=baseline)
    data = as_data(found)
    if json:
        print_json(data)
    else:
        _print(data)
    files = write_report(found)  # after printing: the folder may be read-only
    note(f"wrote {', '.join(str(path) for path in files)}")


def _print(data: dict[str, Any]) -> None:
    from senet.study.report.tables import heading, measured_on, report_rows

    columns, rows = report_rows(data)
    # Verdicts follow the table: in a column they would be wrapped to a few letters.
    table(heading(data), columns[:-1], [row[:-1] for row in rows])
    stdout.print(f"\n{measured_on(data)}\n")
    for label, *_, verdict in rows:
        stdout.print(f"{label}: {verdict}")
    stdout.print()
    for sentence in data["summary"]:
        stdout.print(sentence)
    stdout.print()
    for line in [*data["notes"], *data["study_notes"]]:
        stdout.print(f"- {line}")
    for one in data["left_out"]:
        note(f"missing: {one['arm']}, seed {one['seed']}: {one['reason']}", style="yellow")
