"""The paper's tables alongside what was measured here, as a page of Markdown."""

from typing import Any

from senet.study.report.tables import short_paths
from senet.study.reproduction.lines import (
    PLACEHOLDERS,
    command_lines,
    errors_title,
    measured_line,
    network_cell,
    paper_errors,
    related_line,
    result_cell,
    row_label,
    status_summary,
    table_notes,
    table_title,
)
from senet.study.reproduction.rows import Reproduction, Row
from senet.utils.templates import render

__all__ = ["as_markdown"]


def as_markdown(reproduction: Reproduction) -> str:
    """Return all tables as Markdown.

    Args:
        reproduction: see `senet.study.reproduction.reproduction.reproduce`.
    """
    return render(
        __package__,
        "reproduce.md.jinja",
        summary=status_summary(reproduction),
        placeholders=PLACEHOLDERS,
        tables=[_table(key, rows) for key, rows in reproduction.tables()],
        unused=[short_paths(text) for text in reproduction.unused],
    )


def _table(key: str, rows: list[Row]) -> dict[str, Any]:
    return {
        "title": table_title(key),
        "errors": errors_title(rows),
        "rows": [
            {
                "label": row_label(row),
                "network": network_cell(row),
                "errors": paper_errors(row),
                "result": result_cell(row),
            }
            for row in rows
        ],
        "measured": [(row.entry.label, measured_line(one)) for row in rows for one in row.measured],
        "related": [(row.entry.label, related_line(arm)) for row in rows for arm in row.related],
        "notes": table_notes(key, rows),
        "commands": command_lines(key, rows),
    }
