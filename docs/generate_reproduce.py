"""Write docs/reproduce.md: every table of the paper, the measured results, and the commands for the rest.

python docs/generate_reproduce.py

The results are read from the reports of studies in docs/: studies/*/report.json.
"""

from pathlib import Path

from senet.study.reproduction.page import as_markdown
from senet.study.reproduction.reproduction import reproduce

PAGE = Path(__file__).with_name("reproduce.md")
STUDIES = Path(__file__).with_name("studies")


def page() -> str:
    reports = sorted(STUDIES.glob("*/report.json"))
    return as_markdown(reproduce(reports)) + "This page is written by `python docs/generate_reproduce.py`.\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
