"""Parameters, multiply-adds and activation memory of a network, by block, stage and paper table, with SE separate.

`cost` counts any network; `senet.costs.tables` counts named networks and compares them with the paper. Imports
`senet.models` and below; benchmarks, gates, studies, the hub and the command line use it.
"""

from senet.costs.cost import Block, Cost, Part, cost

__all__ = [
    "Block",
    "Cost",
    "Part",
    "cost",
]
