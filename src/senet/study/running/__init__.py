"""Run the missing runs of a plan: local processes or a Ray cluster.

Imports `senet.study.plan`. Reports read its folders.
"""

from senet.study.running.run import run_plan

__all__ = [
    "run_plan",
]
