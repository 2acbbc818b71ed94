"""One file with everything about a network's gates, to open in a browser."""

from senet.gates.report.writing import write_page

__all__ = ["write_page"]
