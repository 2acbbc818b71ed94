"""Write the files of a report."""

import json
from os import PathLike
from pathlib import Path

from senet.study.report.page import as_html, as_markdown
from senet.study.report.plots import draw_report
from senet.study.report.report import StudyReport
from senet.study.report.report_data import as_data
from senet.utils.files import atomic_path

__all__ = ["write_report"]

FILES = ("report.html", "report.md", "report.png", "report.json")


def write_report(report: StudyReport, folder: str | PathLike[str] | None = None) -> list[Path]:
    """Write report.html, report.md, report.png and report.json.

    Args:
        report: see `make_report`.
        folder: existing folder; the study's own unless given.

    Returns:
        The paths of the files.

    Raises:
        OSError: a file cannot be written.
    """
    folder = report.results.plan.folder if folder is None else Path(folder)
    data = as_data(report)
    text = json.dumps(data, indent=2, allow_nan=False)
    for name, content in (
        ("report.html", as_html(data)),
        ("report.md", as_markdown(data)),
        ("report.json", text + "\n"),
    ):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    draw_report(data, folder / "report.png")
    return [folder / name for name in FILES]
