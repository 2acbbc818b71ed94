"""Record the gates, squeezes and hidden units of a network over a data set; save, load and merge recordings.

Imports `senet.evaluation`, `senet.costs` and below. The other packages of `senet.gates` use it.
"""

from senet.gates.recording.merging import merge_gates
from senet.gates.recording.record import BlockGates, Gates, HiddenUnits, Sample
from senet.gates.recording.record_file import load_gates
from senet.gates.recording.recorder import record_gates
from senet.gates.recording.statistics import Statistics

__all__ = [
    "BlockGates",
    "Gates",
    "HiddenUnits",
    "Sample",
    "Statistics",
    "load_gates",
    "merge_gates",
    "record_gates",
]
