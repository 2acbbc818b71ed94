"""Report a recording: an HTML page for a browser, and the paper's figures 6 and 7.

Imports `senet.gates.diagnosis` and below. The command line uses it.
"""

from senet.gates.report.page import write_page
from senet.gates.report.plots import draw_figure6, draw_figure7

__all__ = ["draw_figure6", "draw_figure7", "write_page"]
