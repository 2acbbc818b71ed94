"""Fold constant gates into the adjacent layers, exactly or within a budget of error.

Imports `senet.gates.diagnosis` and below. The command line uses it.
"""

from senet.gates.folding.fold import can_fold, fold_gates
from senet.gates.folding.fold_plan import FoldPlan
from senet.gates.folding.greedy_selection import plan_fold

__all__ = [
    "FoldPlan",
    "can_fold",
    "fold_gates",
    "plan_fold",
]
