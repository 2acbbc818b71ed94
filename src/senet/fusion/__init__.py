"""Batch norm with SE, and the sum and ReLU behind it, in as many passes over feature maps as batch norm alone."""

from senet.fusion.backends import fused_by, fused_choice, set_fused
from senet.fusion.blocks import is_plain, is_watched
from senet.fusion.formulas import beside
from senet.fusion.operands import Running
from senet.fusion.operations import can_fuse, count_batch, normalise
from senet.fusion.whole import evaluate, train, train_plain

__all__ = [
    "Running",
    "beside",
    "can_fuse",
    "count_batch",
    "evaluate",
    "fused_by",
    "fused_choice",
    "is_plain",
    "is_watched",
    "normalise",
    "set_fused",
    "train",
    "train_plain",
]

if fused_choice() == "triton":
    import senet.fusion.operators  # noqa: F401  (as `set_fused` does)
