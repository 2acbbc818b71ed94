"""Parameters, multiply-adds and activation memory of a network, with SE listed separately.

Imports `senet.models` and below. Benchmarks, gates, studies and the command line use it.
"""

from senet.costs.cost import Block, Cost, Part, cost

__all__ = [
    "Block",
    "Cost",
    "Part",
    "cost",
]
