"""The operations of a network from one run, with their modules and shapes; and what can be read from them.

Imports `senet.nn` and `senet.utils`. Sites, costs, weights and gates use it.
"""

__all__: list[str] = []
