"""Grids of training runs with seeds: plan, run, report, and compare with the paper.

Imports `senet.training` and below. The command line uses it.
"""

__all__: list[str] = []
