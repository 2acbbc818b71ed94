"""See what the gates of a network do, and take away those that do nothing.

`record_gates` watches them over a data set, `measure_worth` and `diagnose` say what they do and whether it matters,
`write_page` shows it, and `plan_fold` with `fold_gates` takes out what can be spared.
"""

from senet.gates.diagnosis import VERDICTS, BlockDiagnosis, Diagnosis, Thresholds, diagnose
from senet.gates.drawing import draw_figure6, draw_figure7
from senet.gates.folding import can_fold, fold_gates
from senet.gates.merging import merge_gates
from senet.gates.page import write_page
from senet.gates.plan import FoldPlan, plan_fold
from senet.gates.record import BlockGates, Gates, HiddenUnits, Sample
from senet.gates.record_file import load_gates
from senet.gates.recording import record_gates
from senet.gates.replacing import replaced
from senet.gates.statistics import Statistics
from senet.gates.worth import Interval, Worth, measure_worth

__all__ = [
    "VERDICTS",
    "BlockDiagnosis",
    "BlockGates",
    "Diagnosis",
    "FoldPlan",
    "Gates",
    "HiddenUnits",
    "Interval",
    "Sample",
    "Statistics",
    "Thresholds",
    "Worth",
    "can_fold",
    "diagnose",
    "draw_figure6",
    "draw_figure7",
    "fold_gates",
    "load_gates",
    "measure_worth",
    "merge_gates",
    "plan_fold",
    "record_gates",
    "replaced",
    "write_page",
]
