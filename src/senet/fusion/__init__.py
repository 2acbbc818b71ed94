"""Batch norm with SE, and the sum and ReLU behind it, in as many passes over feature maps as batch norm alone."""

from senet.fusion.blocks import HOOKS, is_plain
from senet.fusion.formulas import beside
from senet.fusion.operands import Running
from senet.fusion.operations import can_fuse, count_batch, evaluate, normalise, normalise_plain
from senet.fusion.passes import fused_by, fused_choice, set_fused

__all__ = [
    "HOOKS",
    "Running",
    "beside",
    "can_fuse",
    "count_batch",
    "evaluate",
    "fused_by",
    "fused_choice",
    "is_plain",
    "normalise",
    "normalise_plain",
    "set_fused",
]
