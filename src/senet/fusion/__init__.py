"""Fuse the SE that a network already has with the batch norm and the activation before it: `fuse`, and back, `unfuse`.

`find_fusions.py` finds chains batch norm, activation, SE in one run; `fused_class.py` gives their modules subclasses,
which `fused_call.py` runs. Imports `senet.insertion` (checks only), `senet.graph`, `senet.nn` and `senet.utils`.
"""

from senet.fusion.fuse import fuse, unfuse
from senet.fusion.fused_class import is_fused
from senet.fusion.report import FuseReport

__all__ = ["FuseReport", "fuse", "is_fused", "unfuse"]
