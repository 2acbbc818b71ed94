"""Record what the gates of a network do, diagnose it, show it, and fold gates that do nothing.

Imports `senet.evaluation`, `senet.costs` and below. Only the command line uses it.
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
from senet.gates.report import write_page
from senet.gates.report.plots import draw_figure6, draw_figure7

__all__ = [
    "VERDICTS",
    "Ablation",
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
