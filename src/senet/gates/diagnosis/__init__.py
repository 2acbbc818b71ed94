"""Diagnose recorded gates: ablations with confidence bounds, verdicts, and advice.

Imports `senet.gates.recording` and below. `senet.gates.folding` and `senet.gates.report` use it.
"""

from senet.gates.diagnosis.ablation import Ablation, Interval, ablate_blocks
from senet.gates.diagnosis.diagnosis import VERDICTS, BlockDiagnosis, Diagnosis, Thresholds, diagnose
from senet.gates.diagnosis.gate_overrides import override_gates

__all__ = [
    "VERDICTS",
    "Ablation",
    "BlockDiagnosis",
    "Diagnosis",
    "Interval",
    "Thresholds",
    "ablate_blocks",
    "diagnose",
    "override_gates",
]
