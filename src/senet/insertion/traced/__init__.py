"""Find sites in any network from one recorded run: where branches join, and the modules that end them.

`find_in_trace` returns sites, and modules without one with the reason; `Effects` what has no effect on the outputs;
`suggest` modules for `at=`. Imports `senet.graph`, and `attachment`, `site` and `site_maps` of `senet.insertion`.
"""

from senet.insertion.traced.effects import Effects
from senet.insertion.traced.finder import find_in_trace
from senet.insertion.traced.suggestions import suggest

__all__ = ["Effects", "find_in_trace", "suggest"]
