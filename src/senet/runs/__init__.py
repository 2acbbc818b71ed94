"""The folder of a training run: its files, its metrics, progress reports, and the comparison of finished runs.

Imports `senet.recipes` and below. Only `senet.training`, `senet.study` and the command line import it.
"""

from senet.runs.comparison import Arm, compare
from senet.runs.folder import RunFolder
from senet.runs.metrics import Epoch
from senet.runs.reporting import Reporter, Run, Silent

__all__ = [
    "Arm",
    "Epoch",
    "Reporter",
    "Run",
    "RunFolder",
    "Silent",
    "compare",
]
