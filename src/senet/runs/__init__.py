"""The folder of a training run: its files, its metrics, and the comparison of finished runs.

Imports `senet.recipes` and below. Training and studies use it.
"""

from senet.runs.comparison import Arm, compare
from senet.runs.metrics import Epoch, Reporter, Run, Silent

__all__ = [
    "Arm",
    "Epoch",
    "Reporter",
    "Run",
    "Silent",
    "compare",
]
