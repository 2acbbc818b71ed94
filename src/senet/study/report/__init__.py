"""Results of a study with paired statistics: tables, plots, an HTML page and Markdown.

Imports `senet.study.plan` and `senet.study.running`. Reproduction and the command line use it.
"""

from senet.study.report.report import ArmReport, StudyReport, make_report
from senet.study.report.report_data import as_data
from senet.study.report.writing import write_report

__all__ = [
    "ArmReport",
    "StudyReport",
    "as_data",
    "make_report",
    "write_report",
]
