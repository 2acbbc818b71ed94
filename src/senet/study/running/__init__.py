"""Run the missing runs of a plan, in local processes or on a Ray cluster.

Imports `senet.study.plan` and `senet.runs`. Reports and the command line use it.
"""

from senet.study.running.run import run_plan

__all__ = [
    "run_plan",
]
