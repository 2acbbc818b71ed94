"""Record the gates of a network, diagnose them, report them, and fold gates that are nearly constant.

Imports `senet.evaluation`, `senet.costs` and below. The command line uses it.
"""

from senet.gates.diagnosis import (
    VERDICTS,
    Ablation,
    BlockDiagnosis,
    Diagnosis,
    Interval,
    Thresholds,
    ablate_blocks,
    diagnose,
    override_gates,
)
from senet.gates.folding import FoldPlan, can_fold, fold_gates, plan_fold
from senet.gates.monitor import GateMonitor
from senet.gates.recording import (
    BlockGates,
    Gates,
    HiddenUnits,
    Sample,
    Statistics,
    load_gates,
    merge_gates,
    record_gates,
)
from senet.gates.report import draw_figure6, draw_figure7, write_page

__all__ = [
    "VERDICTS",
    "Ablation",
    "BlockDiagnosis",
    "BlockGates",
    "Diagnosis",
    "FoldPlan",
    "GateMonitor",
    "Gates",
    "HiddenUnits",
    "Interval",
    "Sample",
    "Statistics",
    "Thresholds",
    "ablate_blocks",
    "can_fold",
    "diagnose",
    "draw_figure6",
    "draw_figure7",
    "fold_gates",
    "load_gates",
    "merge_gates",
    "override_gates",
    "plan_fold",
    "record_gates",
    "write_page",
]
