"""Study files, the arms and seeds that they define, and estimates of the cost of their runs.

Imports `senet.training` and below. The other packages of `senet.study` and the command line use it.
"""

from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan import Plan, PlannedRun
from senet.study.plan.plan_file import load_plan, save_plan
from senet.study.plan.study import Study, StudyArm

__all__ = [
    "Plan",
    "PlannedRun",
    "Study",
    "StudyArm",
    "load_plan",
    "make_plan",
    "open_study",
    "save_plan",
]
