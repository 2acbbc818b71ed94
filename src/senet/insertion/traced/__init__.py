"""Find sites in any network from one recorded run: where branches join, and the modules that end them.

`find_in_trace` returns sites, and the modules without one with a reason. Imports `senet.graph`, and `attachment` and
`site` of `senet.insertion`; `senet.insertion.sites` imports it.
"""

from senet.insertion.traced.finder import find_in_trace
from senet.insertion.traced.runs import run_of

__all__ = ["find_in_trace", "run_of"]
