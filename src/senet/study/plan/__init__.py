"""Study files, the arms and seeds that they define, and estimates of what the runs take.

Imports `senet.training` and below. The other packages of `senet.study` use it.
"""

from senet.study.plan.plan import Plan, make_plan

__all__ = [
    "Plan",
    "make_plan",
]
