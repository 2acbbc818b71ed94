"""Results of a study with paired statistics: tables, plots, an HTML page and Markdown.

Imports `senet.study.plan` and `senet.study.running`. Reproduction and the command line use it.
"""

from senet.study.report.report import StudyReport, make_report

__all__ = [
    "StudyReport",
    "make_report",
]
