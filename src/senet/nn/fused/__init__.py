"""Batch norm with SE, sum and ReLU, in as many passes over feature maps as batch norm alone.

`autograd.py` is one operation for all, `operations.py` and `activated.py` are passes around the excitation, defined in
`reference.py` and computed by the backends of `backends.py`. Imports `senet.nn.block` and the modules below it; only
`senet.nn` and the layers above import it.
"""

from senet.nn.fused.activated import can_fuse_activated, normalize_activate
from senet.nn.fused.autograd import evaluate, train, train_excitation, train_plain
from senet.nn.fused.backends import fused_by, fused_choice, set_fused
from senet.nn.fused.block_inspection import excitation_of_layers, is_plain, is_watched, squeezes_whole
from senet.nn.fused.interface import Excitation, MapActivation, Running
from senet.nn.fused.operations import can_fuse, count_batch, normalize
from senet.nn.fused.reference import excite, unsqueeze_spatial

__all__ = [
    "Excitation",
    "MapActivation",
    "Running",
    "can_fuse",
    "can_fuse_activated",
    "count_batch",
    "evaluate",
    "excitation_of_layers",
    "excite",
    "fused_by",
    "fused_choice",
    "is_plain",
    "is_watched",
    "normalize",
    "normalize_activate",
    "set_fused",
    "squeezes_whole",
    "train",
    "train_excitation",
    "train_plain",
    "unsqueeze_spatial",
]

if fused_choice() == "triton":
    import senet.nn.fused.custom_ops  # noqa: F401  (as `set_fused` does)
