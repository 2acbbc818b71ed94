"""Write docs/reproduce.md: every table of the paper, what was measured, and the command for what was not.

python docs/generate_reproduce.py

What was measured is read from the reports of studies that docs/ holds: studies/*/report.json.
"""

from pathlib import Path

from senet.study.reproduction.page import as_page
from senet.study.reproduction.reproduction import reproduce

PAGE = Path(__file__).with_name("reproduce.md")
STUDIES = Path(__file__).with_name("studies")


def page() -> str:
    reports = sorted(STUDIES.glob("*/report.json"))
    return as_page(reproduce(reports)) + "\nThis page is written by `python docs/generate_reproduce.py`.\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
