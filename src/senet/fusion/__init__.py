"""Batch norm with SE, and the sum and ReLU behind it, in as many passes over feature maps as batch norm alone."""

from senet.fusion.formulas import beside
from senet.fusion.operations import HOOKS, can_fuse, is_plain, normalise
from senet.fusion.passes import fused_by, fused_choice, set_fused

__all__ = ["HOOKS", "beside", "can_fuse", "fused_by", "fused_choice", "is_plain", "normalise", "set_fused"]
