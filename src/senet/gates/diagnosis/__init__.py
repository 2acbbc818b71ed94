"""What recorded gates do and whether it matters: verdicts, ablations with bounds, and advice.

Imports `senet.gates.recording` and below. Folding and the report use it.
"""

from senet.gates.diagnosis.ablation import Interval, Worth, measure_worth
from senet.gates.diagnosis.diagnosis import VERDICTS, BlockDiagnosis, Diagnosis, Thresholds, diagnose
from senet.gates.diagnosis.gate_overrides import replaced

__all__ = [
    "VERDICTS",
    "BlockDiagnosis",
    "Diagnosis",
    "Interval",
    "Thresholds",
    "Worth",
    "diagnose",
    "measure_worth",
    "replaced",
]
