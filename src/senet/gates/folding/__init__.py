"""Fold constant gates into the layers around them, exactly or within a budget of error.

Imports `senet.gates.diagnosis` and below. The command line uses it.
"""

from senet.gates.folding.fold import can_fold, fold_gates
from senet.gates.folding.plan import FoldPlan, plan_fold

__all__ = [
    "FoldPlan",
    "can_fold",
    "fold_gates",
    "plan_fold",
]
