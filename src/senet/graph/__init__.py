"""One trace of a network, and what is read from it: shapes, stages, counts, channels, SE modules, factor folding.

`trace` runs a network once, usually without values, and records its operations, module calls and the values between
them. `find_se` finds SE modules of any library. Imports `senet.nn` and `senet.utils`; insertion and all above use it.
"""

from senet.graph.example_inputs import Example, example_image
from senet.graph.operations import Call, Operation, Trace, Value
from senet.graph.recorder import trace, trace_example
from senet.graph.se_kinds import register_se
from senet.graph.se_modules import SEUnit, find_se, own_se, watch_gates

__all__ = [
    "Call",
    "Example",
    "Operation",
    "SEUnit",
    "Trace",
    "Value",
    "example_image",
    "find_se",
    "own_se",
    "register_se",
    "trace",
    "trace_example",
    "watch_gates",
]
